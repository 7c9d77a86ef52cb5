//! Frames, versions and connections.

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::Message as _;

use super::*;
use crate::kafka::frame::samples::sample;
use crate::kafka::versions::APIS;

#[tokio::test]
async fn every_served_version_of_every_api_is_answered() {
    let broker = Broker::start().await;
    for api in APIS {
        for version in api.min..=api.max {
            let mut client = broker.client().await;
            client.send_raw(&sample(api, version)).await;
            let answer = client.receive_raw().await;
            let answer = answer.unwrap_or_else(|| panic!("{:?} {version} is answered", api.key));
            assert_eq!(answer.get(..4), Some(&7_i32.to_be_bytes()[..]), "{:?} {version}", api.key);
        }
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send_raw(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 1, 2, 3]).await;
    let mut answer = client.receive_raw().await.expect("an answer");
    let header = ResponseHeader::decode(&mut answer, 0).expect("a header");
    assert_eq!(header.correlation_id, 5);
    let response = ApiVersionsResponse::decode(&mut answer, 0).expect("version 0");
    assert_eq!(response.error_code, code(ResponseError::UnsupportedVersion));
    assert_eq!(response.api_keys.len(), APIS.len());
    // The connection goes on, as the client now knows what to ask.
    let most = ApiVersionsRequest::VERSIONS.max;
    let response = client.call(most, &ApiVersionsRequest::default()).await;
    let produce = response.api_keys.iter().find(|api| api.api_key == ApiKey::Produce as i16);
    assert_eq!(produce.map(|api| api.min_version), Some(0));
}

#[tokio::test]
async fn malformed_frames_close_their_own_connection_only() {
    let broker = Broker::start().await;
    let mut neighbour = broker.client().await;
    let frames: &[&[u8]] = &[
        &[],
        &[0],
        &[0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        &[0, 1, 0, 99, 0, 0, 0, 1, 0xff, 0xff],
        &[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        &[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 1, 0, 1, 0xff],
        &[0, 3, 0, 1, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0],
    ];
    for frame in frames {
        let mut client = broker.client().await;
        client.send_raw(frame).await;
        assert_eq!(client.receive_raw().await, None, "{frame:?}");
    }
    for size in [-1, i32::MAX] {
        let mut client = broker.client().await;
        client.stream.write_all(&i32::to_be_bytes(size)).await.expect("an open connection");
        assert_eq!(client.receive_raw().await, None, "{size}");
    }
    neighbour.call(0, &ApiVersionsRequest::default()).await;
    let refused = broker.kafka.metrics.kafka_connections_refused.get();
    assert_eq!(refused, frames.len() as u64 + 2, "each is counted");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let broker = Broker::start_with(KafkaSettings { connections: 1, ..Default::default() }).await;
    let mut first = broker.client().await;
    first.call(0, &ApiVersionsRequest::default()).await;
    let mut second = broker.client().await;
    let id = second.send(0, &ApiVersionsRequest::default()).await;
    drop(first);
    second.receive::<ApiVersionsRequest>(0, id).await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let idle = Duration::from_millis(50);
    let broker = Broker::start_with(KafkaSettings { idle, ..Default::default() }).await;
    let mut client = broker.client().await;
    assert_eq!(client.receive_raw().await, None);
}

#[tokio::test]
async fn a_shutdown_ends_waiting_connections() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    client.call(0, &ApiVersionsRequest::default()).await;
    broker.shutdown.cancel();
    assert_eq!(client.receive_raw().await, None);
    tokio::time::timeout(Duration::from_secs(5), broker.served)
        .await
        .expect("the drain is short when nothing is in work")
        .expect("no panic");
}
