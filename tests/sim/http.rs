//! The real listener and the real transport, on loopback: who is let in, and what comes through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use robustmq_cloud::uplink::{self, Admission, Rights, Tokens};
use robustmq_common::ids::EdgeId;
use robustmq_common::limits::{self, SYNC_FRAME_BYTES};
use robustmq_common::sync::{Answer, Outcome, Refusal, SessionId, StoreId};
use robustmq_edge::uplink::{
    Call, HttpSettings, HttpTransport, MemoryBacklog, Transport, TransportError, Uplink,
    UplinkMetrics, UplinkParts, UplinkSettings, exchange,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::bench::{DeadLetterList, LANE, numbered, payloads, publish};
use crate::cloud::Cloud;

struct Listener {
    cloud: Cloud,
    tokens: Tokens,
    address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

async fn listen(admission: Admission) -> Listener {
    let cloud = Cloud::new(2);
    let tokens = Tokens::new(cloud.store());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let router = uplink::router(cloud.start(), tokens.clone(), admission);
    tokio::spawn(uplink::run(listener, None, router, stop.clone()));
    Listener { cloud, tokens, address, _stop: stop.drop_guard() }
}

fn edge(name: &str) -> EdgeId {
    EdgeId::new(name).expect("a legal name")
}

impl Listener {
    fn transport(&self, name: &str, token: Option<String>) -> HttpTransport {
        let settings = HttpSettings {
            url: format!("http://{}", self.address),
            edge: edge(name),
            token,
            insecure: false,
            timeout: Duration::from_secs(20),
        };
        HttpTransport::new(&settings, None, [LANE]).expect("a transport")
    }

    async fn ask(&self, name: &str, token: Option<&str>) -> Outcome {
        let transport = self.transport(name, token.map(str::to_owned));
        let answer = exchange(&transport, Call::Heartbeat, Bytes::from_static(b"x")).await;
        answer.expect("an answer").outcome
    }
}

/// What somebody is told who is let in and then talks nonsense.
const LET_IN: Outcome = Outcome::Refused(Refusal::Malformed);
const SENT_AWAY: Outcome = Outcome::Refused(Refusal::Unauthorised);

#[tokio::test]
async fn from_loopback_no_token_is_needed_until_the_first_edge_is_registered() {
    let listener = listen(Admission::default()).await;
    assert_eq!(listener.ask("gw", None).await, LET_IN);
    listener.tokens.add(&edge("other"), Rights::all()).await.expect("issued");
    assert_eq!(listener.ask("gw", None).await, SENT_AWAY);
    let strict = listen(Admission { require_token: true, ..Admission::default() }).await;
    assert_eq!(strict.ask("gw", None).await, SENT_AWAY);
}

#[tokio::test]
async fn a_token_is_good_for_its_own_edge_until_that_is_removed() {
    let listener = listen(Admission::default()).await;
    let token = listener.tokens.add(&edge("gw"), Rights::all()).await.expect("issued");
    let other = listener.tokens.add(&edge("other"), Rights::all()).await.expect("issued");
    assert_eq!(listener.ask("gw", Some(&token)).await, LET_IN);
    assert_eq!(listener.ask("gw", Some(&other)).await, SENT_AWAY);
    assert_eq!(listener.ask("gw", Some("rmq_00")).await, SENT_AWAY);
    assert_eq!(listener.ask("gw", None).await, SENT_AWAY);
    let unknown = Outcome::Refused(Refusal::UnknownEdge);
    assert_eq!(listener.ask("nobody", Some(&token)).await, unknown);
    listener.tokens.remove(&edge("gw")).await.expect("removed");
    assert_eq!(listener.ask("gw", Some(&token)).await, unknown);
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_without_being_kept() {
    let listener = listen(Admission::default()).await;
    let transport = listener.transport("gw", None);
    let answer = transport.call(Call::Batch(LANE), vec![0; SYNC_FRAME_BYTES + 1].into()).await;
    // The cloud may hang up before it has read everything; what it must not do is take it.
    match answer {
        Ok(answer) => {
            let answer = Answer::decode(&answer).expect("an answer");
            let limit_bytes = u32::try_from(SYNC_FRAME_BYTES).expect("fits");
            assert_eq!(answer.outcome, Outcome::Refused(Refusal::TooLarge { limit_bytes }));
        }
        Err(error) => assert!(matches!(error, TransportError::Unreachable(_)), "{error}"),
    }
}

/// A request whose body is being read, and of which a little comes and then nothing.
async fn stuck(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: cloud\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut told = [0; 12];
    // Said when the body is first asked for.
    stream.read_exact(&mut told).await.expect("told to go on");
    assert_eq!(&told, b"HTTP/1.1 100");
    stream.write_all(b"x").await.expect("sent");
    stream
}

#[tokio::test]
async fn edges_on_links_that_are_stuck_shut_out_nobody() {
    let listener = listen(Admission::default()).await;
    let mut links = Vec::new();
    for number in 0..2 * limits::UPLINK_BATCHES_IN_WORK {
        let path = format!("/v1/edges/slow-{number}/lanes/0/batches");
        links.push(stuck(listener.address, &path).await);
    }
    assert_eq!(listener.ask("gw", None).await, LET_IN, "a heartbeat");
    let transport = listener.transport("gw", None);
    let answer = exchange(&transport, Call::Batch(LANE), Bytes::from_static(b"x")).await;
    assert_eq!(answer.expect("an answer").outcome, LET_IN, "a batch");
    drop(links);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable_and_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let timeout = Duration::from_secs(20);
    let settings = HttpSettings { url, edge: edge("gw"), token: None, insecure: false, timeout };
    let transport = HttpTransport::new(&settings, None, [LANE]).expect("a transport");
    let error = transport.call(Call::Hello, Bytes::new()).await.expect_err("nobody is there");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn records_come_through_in_order() {
    let listener = listen(Admission::default()).await;
    let token = listener.tokens.add(&edge("gw"), Rights::all()).await.expect("issued");
    let backlog = Arc::new(MemoryBacklog::new(StoreId(1), 1));
    publish(&backlog, numbered("a", 1..=2_000));
    let uplink = Uplink::new(UplinkParts {
        backlog: backlog.clone(),
        transport: Arc::new(listener.transport("gw", Some(token))),
        dead_letters: Arc::new(DeadLetterList::default()),
        settings: UplinkSettings { batch_records: 100, window: 4, ..UplinkSettings::default() },
        session: SessionId(1),
        jitter: Arc::new(|| 0.5),
        metrics: UplinkMetrics::default(),
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (uplink, stop) = (uplink.clone(), stop.clone());
        async move { uplink.run(stop).await }
    });
    crate::bench::eventually("the queue is drained", || backlog.is_drained()).await;
    stop.cancel();
    running.await.expect("ends without a panic");
    assert_eq!(payloads(&listener.cloud).await, numbered("a", 1..=2_000));
    assert!(uplink.status().connected);
}
