//! `GET /v1/datasets/{topic}`: a topic with a source ([`crate::dataset::Status`]). `POST /v1/datasets/{topic}/warm`: brings it into the cache.
//! `POST /v1/datasets/{topic}/refresh`: lists its source again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use robustmq_common::ids::KafkaTopic;

use super::{State, unavailable};
use crate::dataset::StatusError;
use crate::group::shared::snapshots::wall_ms;
use crate::topics::Topic;

async fn find(state: &State, name: &str) -> Result<Arc<Topic>, Response> {
    let missing = || (StatusCode::NOT_FOUND, "there is no such topic\n").into_response();
    let name = KafkaTopic::new(name).map_err(|_| missing())?;
    let topic = state.topics.get(&name).await;
    topic.map_err(|error| unavailable(&error))?.ok_or_else(missing)
}

fn refused(error: &StatusError) -> Response {
    match error {
        StatusError::NoDataset(_) => {
            (StatusCode::NOT_FOUND, error.to_string() + "\n").into_response()
        }
        StatusError::List(error) => {
            (StatusCode::CONFLICT, error.to_string() + "\n").into_response()
        }
        StatusError::Store(error) => unavailable(error),
    }
}

pub(super) async fn show(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    match state.datasets.status(&topic).await {
        Ok(status) => Json(status).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn refresh(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    let datasets = Arc::clone(&state.datasets);
    // It is carried out though nobody waits for it: a long listing takes longer than some clients do.
    let refreshed = state.log.finish(async move { datasets.refresh(&topic, wall_ms()).await });
    match refreshed.await {
        Ok(refreshed) => Json(refreshed).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn warm(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    match state.datasets.warm(&topic).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => refused(&error),
    }
}
