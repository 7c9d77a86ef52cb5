use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::{HttpLimits, serve_http};
use crate::net::{client_tls, server_tls};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMITS: HttpLimits = HttpLimits {
    connections: 2,
    http2_window_bytes: 65_536,
    http2_streams: 4,
    request_timeout: PATIENCE,
};

/// One HTTP/1.1 request on its own connection: status and body.
pub(crate) async fn request(to: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let stream = TcpStream::connect(to).await.expect("the server listens");
    exchange(stream, request, body.len(), body).await
}

/// A request that announces a body and does not send it.
async fn announce(to: SocketAddr, request: &str, length: usize) -> (u16, String) {
    let stream = TcpStream::connect(to).await.expect("the server listens");
    exchange(stream, request, length, "").await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    length: usize,
    body: &str,
) -> (u16, String) {
    let head = format!(
        "{request} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    stream.write_all(body.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

#[tokio::test]
async fn a_request_in_work_is_answered_after_shutdown_and_no_new_one_is_taken() {
    let (listener, address) = listen().await;
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, go_on) = (entered.clone(), release.clone());
    let slow = move || async move {
        inside.notify_one();
        go_on.notified().await;
        "done"
    };
    let router = Router::new().route("/slow", get(slow));
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve_http(listener, None, router, LIMITS, shutdown.clone()));
    let client = tokio::spawn(request(address, "GET /slow", ""));
    entered.notified().await;
    shutdown.cancel();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    assert_eq!(client.await.expect("no panic"), (200, "done".to_owned()));
    tokio::time::timeout(PATIENCE, server).await.expect("the drain ends").expect("no panic");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_free_one() {
    let (listener, address) = listen().await;
    let router = Router::new().route("/", get(|| async { "hello" }));
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve_http(listener, None, router, LIMITS, shutdown.clone()));
    let mut held = Vec::new();
    for _ in 0..LIMITS.connections {
        held.push(TcpStream::connect(address).await.expect("the server listens"));
    }
    let mut waiting = tokio::spawn(request(address, "GET /", ""));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "answered without a free slot");
    held.pop();
    let answer = tokio::time::timeout(PATIENCE, waiting).await.expect("a slot is free");
    assert_eq!(answer.expect("no panic"), (200, "hello".to_owned()));
    drop(held);
    shutdown.cancel();
    server.await.expect("no panic");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (listener, address) = listen().await;
    let router = Router::new().route("/", post(|body: String| async { body }));
    let shutdown = CancellationToken::new();
    let limits = HttpLimits { request_timeout: Duration::from_millis(50), ..LIMITS };
    let server = tokio::spawn(serve_http(listener, None, router, limits, shutdown.clone()));
    let answered = tokio::time::timeout(PATIENCE, announce(address, "POST /", 5)).await;
    assert_eq!(answered.expect("an answer in time").0, 408);
    shutdown.cancel();
    server.await.expect("no panic");
}

#[tokio::test]
async fn a_connection_that_brings_no_request_is_closed() {
    let (listener, address) = listen().await;
    let shutdown = CancellationToken::new();
    let limits = HttpLimits { request_timeout: Duration::from_millis(50), ..LIMITS };
    let server = tokio::spawn(serve_http(listener, None, Router::new(), limits, shutdown.clone()));
    // Nothing at all, and what may become the preface of HTTP/2.
    for sent in ["", "PRI * HT"] {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(sent.as_bytes()).await.expect("the server reads");
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let ended = closed.expect("the server closes");
        assert!(ended.is_err() || answer.is_empty(), "{sent:?}: {answer:?}");
    }
    shutdown.cancel();
    server.await.expect("no panic");
}

#[tokio::test]
async fn https_serves_and_plain_http_to_it_harms_nobody() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/testdata");
    let tls = server_tls(&data.join("server.pem"), &data.join("server.key"), &[b"http/1.1"])
        .expect("usable files");
    let (listener, address) = listen().await;
    let peer = |axum::Extension(peer): axum::Extension<SocketAddr>| async move { peer.to_string() };
    let router = Router::new().route("/peer", get(peer));
    let shutdown = CancellationToken::new();
    let acceptor = Some(TlsAcceptor::from(tls));
    let server = tokio::spawn(serve_http(listener, acceptor, router, LIMITS, shutdown.clone()));

    let mut plain = TcpStream::connect(address).await.expect("the server listens");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("the server reads");
    let mut alert = Vec::new();
    plain.read_to_end(&mut alert).await.expect("the server closes");
    assert!(!alert.starts_with(b"HTTP"), "{alert:?}");

    let client = client_tls(Some(&data.join("ca.pem")), &[b"http/1.1"]).expect("a usable file");
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let from = stream.local_addr().expect("a connected socket");
    let name = ServerName::try_from("localhost").expect("a host name");
    let stream = TlsConnector::from(client).connect(name, stream).await.expect("a handshake");
    assert_eq!(exchange(stream, "GET /peer", 0, "").await, (200, from.to_string()));
    shutdown.cancel();
    server.await.expect("no panic");
}
