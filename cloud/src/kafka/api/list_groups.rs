//! ListGroups (16), versions 0-5; filters by state from 4 on (KIP-518), by type from 5 on (KIP-848).
//!
//! Share groups are of type `share` (KIP-932), all others of type `classic`.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Kafka, text};
use crate::group::share::PROTOCOL_TYPE;
use crate::kafka::errors::KafkaCode as _;

const CLASSIC: &str = "classic";
const SHARE: &str = "share";

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let passes = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let listed = match kafka.groups.list().await {
        Ok(listed) => listed,
        Err(error) => return ListGroupsResponse::default().with_error_code(error.code()),
    };
    let mut groups = Vec::with_capacity(listed.len());
    for group in listed {
        let kind = match group.protocol_type == PROTOCOL_TYPE {
            true => SHARE,
            false => CLASSIC,
        };
        if !passes(&request.states_filter, group.state) || !passes(&request.types_filter, kind) {
            continue;
        }
        let mut answer = ListedGroup::default()
            .with_group_id(GroupId(text(group.group)))
            .with_protocol_type(text(group.protocol_type));
        if version >= 4 {
            answer = answer.with_group_state(text(group.state));
        }
        if version >= 5 {
            answer = answer.with_group_type(text(kind));
        }
        groups.push(answer);
    }
    ListGroupsResponse::default().with_groups(groups)
}
