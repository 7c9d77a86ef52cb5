//! DescribeCluster (60), versions 0-2.
//!
//! One broker, which is its own controller for every client's purpose. Asking for controllers (endpoint type 2, KIP-919) is
//! refused with UNSUPPORTED_ENDPOINT_TYPE, as brokers do. Authorized operations are not reported.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{Kafka, text};

const BROKERS: i8 = 1;

pub(super) fn handle(
    kafka: &Kafka,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type != BROKERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(Some(text("ask a broker for brokers (endpoint type 1)")));
    }
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(kafka.settings.node_id))
        .with_host(text(kafka.settings.advertised_host.clone()))
        .with_port(i32::from(kafka.settings.advertised_port))
        .with_rack(None);
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_cluster_id(text(kafka.settings.cluster_id.clone()))
        .with_controller_id(BrokerId(kafka.settings.node_id))
        .with_brokers(vec![broker])
}
