//! The admin listener's own routes: JSON for an operator, beside `/live`, `/ready`, `/metrics` and `/log-level`.
//!
//! ```text
//! GET /v1/topics[?after=NAME]   one page of topics: name, id, partitions, configuration
//! GET /v1/topics/{topic}        one topic: rates, partitions with offsets and bytes, how far groups are behind
//! GET /v1/groups                groups with their state
//! GET /v1/groups/{group}        one group with members and committed offsets
//! GET /v1/groups/{group}/snapshots                       snapshots of what a group has acknowledged
//! PUT, DELETE /v1/groups/{group}/snapshots/{name}        takes one (`?replace=true`), or deletes it
//! POST /v1/groups/{group}/snapshots/{name}/rewind        has the group go back to it
//! GET /v1/datasets/{topic}      a topic with a source: what is counted, what the cache did
//! GET /v1/datasets/{topic}/find?key=KEY  where a sample with that key is
//! POST /v1/datasets/{topic}/warm brings it into the cache
//! POST, GET /v1/datasets/{topic}/refresh   lists its source again, tells how that went
//! GET, PUT /v1/cache            what caches may take of memory; changes it until the next start
//! GET /v1/store                 the store's figures
//! GET, POST /v1/edges, DELETE /v1/edges/{edge}   see `uplink`
//! ```
//!
//! `cloud/docs/admin.md` shows them with examples, and explains every metric.
//!
//! **Invariant:** nothing here changes topics or groups where the Kafka protocol has a call for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use robustmq_common::admin::{self, Readiness};
use robustmq_common::ids::{KafkaTopic, TopicId};
use robustmq_common::limits;
use robustmq_common::telemetry::LogLevel;
use serde::{Deserialize, Serialize};

use crate::dataset::{Caches, Datasets, NewCaches};
use crate::group::coordinator::{Coordinator, CoordinatorError};
use crate::log::Log;
use crate::store::Store;
use crate::topics::{Catalogue, Topic};
use crate::traffic::Traffic;

mod dataset;
mod sharing;
mod snapshots;
mod topic;

/// What the routes show.
#[derive(Clone)]
pub struct State {
    /// The topics.
    pub topics: Arc<Catalogue>,
    /// The groups.
    pub groups: Coordinator,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The partitions.
    pub log: Arc<Log>,
    /// What goes on in topics.
    pub traffic: Arc<Traffic>,
    /// Topics with a source.
    pub datasets: Arc<Datasets>,
    /// What is cached.
    pub caches: Caches,
}

/// All routes but those for edges.
pub fn router(
    state: State,
    readiness: Readiness,
    registry: Registry,
    log_level: LogLevel,
) -> Router {
    let own = Router::new()
        .route("/v1/topics", get(topics))
        .route("/v1/topics/{topic}", get(topic::show))
        .route("/v1/groups", get(groups))
        .route("/v1/groups/{group}", get(group))
        .route("/v1/groups/{group}/snapshots", get(snapshots::list))
        .route(
            "/v1/groups/{group}/snapshots/{name}",
            put(snapshots::take).delete(snapshots::delete),
        )
        .route("/v1/groups/{group}/snapshots/{name}/rewind", post(snapshots::rewind))
        .route("/v1/datasets/{topic}", get(dataset::show))
        .route("/v1/datasets/{topic}/find", get(dataset::find_key))
        .route("/v1/datasets/{topic}/warm", post(dataset::warm))
        .route("/v1/datasets/{topic}/refresh", get(dataset::refreshed).post(dataset::refresh))
        .route("/v1/cache", get(cache).put(set_cache))
        .route("/v1/store", get(store))
        .with_state(state);
    admin::router(readiness, Arc::new(registry), log_level).merge(own)
}

#[derive(Serialize)]
struct ShownTopic {
    name: KafkaTopic,
    id: TopicId,
    partitions: i32,
    created_ms: i64,
    config: BTreeMap<String, String>,
}

impl ShownTopic {
    fn of(topic: &Topic) -> Self {
        Self {
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic.partitions,
            created_ms: topic.created_ms,
            config: topic.overrides.clone(),
        }
    }
}

#[derive(Serialize)]
struct ShownPage {
    topics: Vec<ShownTopic>,
    /// Pass it as `after` to go on.
    next: Option<KafkaTopic>,
}

#[derive(Deserialize)]
struct Page {
    after: Option<KafkaTopic>,
}

fn unavailable(error: &impl ToString) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string() + "\n").into_response()
}

/// 404 with what is not there.
fn missing(what: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("{what}\n")).into_response()
}

fn no_group(group: &str) -> Response {
    missing(&format!("there is no group {group}"))
}

/// A topic by its name; 404 if there is none.
async fn find(state: &State, name: &str) -> Result<Arc<Topic>, Response> {
    let none = || missing(&format!("there is no topic {name}"));
    let topic = state.topics.get(&KafkaTopic::new(name).map_err(|_| none())?).await;
    topic.map_err(|error| unavailable(&error))?.ok_or_else(none)
}

async fn topics(Shared(state): Shared<State>, Query(page): Query<Page>) -> Response {
    let listed = match state.topics.list(page.after.as_ref(), limits::TOPIC_PAGE).await {
        Ok(listed) => listed,
        Err(error) => return unavailable(&error),
    };
    let next = if listed.more { listed.topics.last().map(|last| last.name.clone()) } else { None };
    let shown = listed.topics.iter().map(|topic| ShownTopic::of(topic));
    Json(ShownPage { topics: shown.collect(), next }).into_response()
}

#[derive(Serialize)]
struct ShownGroup {
    group: String,
    state: &'static str,
    protocol_type: String,
}

async fn groups(Shared(state): Shared<State>) -> Response {
    match state.groups.list().await {
        Ok(listed) => {
            let shown = listed.into_iter().map(|group| ShownGroup {
                group: group.group,
                state: group.state,
                protocol_type: group.protocol_type,
            });
            Json(shown.collect::<Vec<_>>()).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

#[derive(Serialize)]
struct ShownMember {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
}

#[derive(Serialize)]
struct ShownOffset {
    topic: Option<KafkaTopic>,
    topic_id: TopicId,
    partition: i32,
    offset: i64,
    committed_ms: i64,
}

#[derive(Serialize)]
struct ShownGroupDetail {
    group: String,
    state: &'static str,
    generation: i32,
    protocol: Option<String>,
    members: Vec<ShownMember>,
    offsets: Vec<ShownOffset>,
    /// Of a group that shares records and has members.
    sharing: Option<sharing::Shown>,
}

async fn group(Shared(state): Shared<State>, Path(id): Path<String>) -> Response {
    let described = match state.groups.describe(&id).await {
        Ok(Some(described)) => described,
        Ok(None) | Err(CoordinatorError::InvalidGroupId { .. }) => return no_group(&id),
        Err(error) => return unavailable(&error),
    };
    let committed = match state.groups.all_committed(&id).await {
        Ok(committed) => committed,
        Err(error) => return unavailable(&error),
    };
    let mut offsets = Vec::with_capacity(committed.len());
    for (topic_id, partition, committed) in committed {
        // A deleted topic's offsets are shown without a name until they are removed.
        let topic = state.topics.get_by_id(topic_id).await.ok().flatten();
        offsets.push(ShownOffset {
            topic: topic.map(|topic| topic.name.clone()),
            topic_id,
            partition: partition.0,
            offset: committed.offset,
            committed_ms: committed.committed_ms,
        });
    }
    let members = described.snapshot.members.into_iter().map(|member| ShownMember {
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
    });
    let sharing = sharing::of(&state, &id).await;
    Json(ShownGroupDetail {
        sharing,
        group: id,
        state: described.state,
        generation: described.snapshot.generation,
        protocol: described.snapshot.protocol,
        members: members.collect(),
        offsets,
    })
    .into_response()
}

async fn cache(Shared(state): Shared<State>) -> Response {
    Json(state.caches.show()).into_response()
}

async fn set_cache(Shared(state): Shared<State>, Json(new): Json<NewCaches>) -> Response {
    match state.caches.set(new) {
        Ok(()) => Json(state.caches.show()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string() + "\n").into_response(),
    }
}

async fn store(Shared(state): Shared<State>) -> Response {
    Json(state.store.stats()).into_response()
}
