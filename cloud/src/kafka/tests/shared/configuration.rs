//! What is set, shown, moved and removed of a group.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeConfigsRequest, DescribeGroupsRequest, ListGroupsRequest,
};

use super::*;

#[tokio::test]
async fn an_admin_moves_lists_describes_and_deletes_a_group_without_members() {
    let (broker, mut client) = broker_with(12).await;
    assert_eq!(commit(&mut client, "", -1, 6).await, 0);
    assert_eq!(committed(&mut client).await, 6);
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(6..12));
    let describe = DescribeGroupsRequest::default().with_groups(vec![group()]);
    let described = client.call(6, &describe).await.groups.remove(0);
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Stable", 1));
    assert_eq!(&described.members[0].member_assignment[..], b"mine");
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let not_empty = code(ResponseError::NonEmptyGroup);
    assert_eq!(client.call(2, &delete).await.results[0].error_code, not_empty);
    member.leave().await;
    let described = client.call(6, &describe).await.groups.remove(0);
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Empty", 0));
    let listed = client.call(5, &ListGroupsRequest::default()).await.groups;
    assert_eq!(listed[0].group_id, group());
    assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
    assert_eq!(committed(&mut client).await, -1);
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..12), "a deleted group begins anew");
}

#[tokio::test]
async fn a_groups_configuration_is_set_and_shown_and_nonsense_is_refused() {
    let (_broker, mut client) = broker_with(0).await;
    let set = configure(&mut client, "robustmq.shared.start", "latest").await;
    assert_eq!(set, (0, String::new()));
    let (code_of, message) = configure(&mut client, "robustmq.shared.start", "middle").await;
    assert_eq!(code_of, code(ResponseError::InvalidConfig));
    assert!(message.contains("robustmq.shared.start") && message.contains("earliest, latest"));
    let resource = DescribeConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(GROUP))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let described = client.call(4, &request).await.results.remove(0);
    let values: Vec<_> = described
        .configs
        .iter()
        .map(|c| (c.name.as_str(), c.value.as_ref().map(|v| v.as_str()), c.config_source))
        .collect();
    assert!(values.contains(&("robustmq.shared.start", Some("latest"), 8)), "{values:?}");
    assert!(values.contains(&("robustmq.shared.strategy", Some("batch"), 5)), "{values:?}");
}

#[tokio::test]
async fn a_group_that_starts_at_the_end_gets_what_comes_then() {
    let (broker, mut client) = broker_with(8).await;
    configure(&mut client, "robustmq.shared.start", "latest").await;
    let mut member = Member::join(&broker).await;
    assert!(member.fetch().await.is_empty());
    fill(&mut client, 8, 12).await;
    assert_eq!(member.fetch().await, numbers(8..12));
}

#[tokio::test]
async fn a_groups_configuration_tells_where_it_comes_from() {
    let broker = Broker::start().await;
    let pools = broker.kafka.shared.pools();
    let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let defaults =
        [entry("robustmq.shared.start", "latest"), entry("robustmq.shared.delivery.limit", "7")];
    pools.set_defaults(std::collections::BTreeMap::from(defaults));
    let name = "robustmq.shared.delivery.limit".to_owned();
    let op = crate::entries::ConfigOp::Set("2".to_owned());
    let change = crate::entries::ConfigChange { name, op };
    pools.alter_config(GROUP, &[change], false).await.expect("a legal value");
    let config = pools.config(GROUP).await.expect("a store that works");
    assert_eq!(config.delivery_limit, Some(2));
    assert_eq!(config.start, crate::group::shared::config::Start::Latest);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(GROUP))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = broker.client().await.call(4, &request).await;
    let of = |name: &str| {
        let entry = answer.results[0].configs.iter().find(|entry| entry.name.as_str() == name);
        let entry = entry.expect("it is shown");
        (entry.value.as_ref().map(|value| value.to_string()), entry.config_source)
    };
    assert_eq!(of("robustmq.shared.start"), (Some("latest".to_owned()), 4));
    assert_eq!(of("robustmq.shared.delivery.limit"), (Some("2".to_owned()), 8));
    assert_eq!(of("robustmq.shared.strategy"), (Some("batch".to_owned()), 5));
}
