//! `GET /v1/topics/{topic}`: one topic, active or not.
//!
//! ```text
//! {"name", "id", "partitions", "created_ms", "config",
//!  "active", "totals": {...}, "rates": {"produced_records", "produced_bytes", "fetched_records", "fetched_bytes"},
//!  "bytes", "records", "backlog",
//!  "groups": [{"group", "partitions", "lag"}], "more_groups",
//!  "log": [{"partition", "log_start_offset", "local_start_offset", "high_watermark", "leader_epoch", "bytes",
//!           "pushed_out_records"}]}
//! ```
//!
//! Totals count from when the topic became active, rates are for a second. `backlog` is the lag of the slowest group, null where none reads.

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::response::{IntoResponse, Response};
use robustmq_common::limits;
use serde::Serialize;

use super::{ShownTopic, State, find, unavailable};
use crate::traffic::report::{self, GroupLag, PartitionReport};
use crate::traffic::{Rates, Totals};

#[derive(Serialize)]
struct ShownDetail {
    #[serde(flatten)]
    topic: ShownTopic,
    active: bool,
    totals: Totals,
    rates: Rates,
    bytes: u64,
    records: u64,
    backlog: Option<u64>,
    groups: Vec<GroupLag>,
    more_groups: bool,
    log: Vec<PartitionReport>,
}

pub(super) async fn show(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    if let Err(error) = state.datasets.settle(&topic).await {
        return unavailable(&error);
    }
    let log = match report::partitions(&state.log, &topic).await {
        Ok(log) => log,
        Err(error) => return unavailable(&error),
    };
    let reported = [(topic, log)];
    let lags = report::lags(&state.groups, &reported, limits::SHOWN_GROUPS_PER_TOPIC).await;
    let [(topic, log)] = reported;
    let lags = match lags {
        Ok(mut lags) => lags.remove(&topic.id).unwrap_or_default(),
        Err(error) => return unavailable(&error),
    };
    let traffic = state.traffic.of(topic.id);
    let (totals, rates) = traffic.unwrap_or_default();
    Json(ShownDetail {
        topic: ShownTopic::of(&topic),
        active: traffic.is_some(),
        totals,
        rates,
        bytes: log.iter().map(|partition| partition.bytes).sum(),
        records: log.iter().map(PartitionReport::records).sum(),
        backlog: lags.backlog(),
        groups: lags.groups,
        more_groups: lags.more,
        log,
    })
    .into_response()
}
