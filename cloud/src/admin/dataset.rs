//! `GET /v1/datasets/{topic}`: a topic with a source ([`crate::dataset::Status`]). `POST /v1/datasets/{topic}/warm`: brings it into the cache.
//! `POST /v1/datasets/{topic}/refresh`: lists its source again; `GET` asks how that went. `GET /v1/datasets/{topic}/find?key=KEY`: where a
//! sample is ([`crate::dataset::FoundKeys`]).

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use robustmq_common::limits;
use serde::Deserialize;
use serde_json::json;

use super::{State, find, missing, unavailable};
use crate::dataset::{Cursor, FindError, Refreshing, StatusError, Wanted};
use crate::group::shared::snapshots::wall_ms;

fn refused(error: &StatusError) -> Response {
    match error {
        StatusError::NoDataset(_) => missing(&error.to_string()),
        StatusError::List(error) => {
            (StatusCode::CONFLICT, error.to_string() + "\n").into_response()
        }
        StatusError::Stopping => unavailable(error),
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

/// What came of a listing; 202 while it goes on, which a long one does after the answer too.
async fn told(mut refreshing: Refreshing, most: Duration) -> Response {
    match refreshing.outcome(most).await {
        Some(outcome) => match &*outcome {
            Ok(refreshed) => Json(refreshed).into_response(),
            Err(error) => refused(error),
        },
        None => {
            let going_on = json!({"is_refreshing": true, "began_ms": refreshing.began_ms});
            (StatusCode::ACCEPTED, Json(going_on)).into_response()
        }
    }
}

pub(super) async fn refresh(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    match state.datasets.begin_refresh(&topic, wall_ms()) {
        Ok(refreshing) => told(refreshing, limits::ADMIN_WAIT).await,
        Err(error) => refused(&error),
    }
}

pub(super) async fn refreshed(Shared(state): Shared<State>, Path(name): Path<String>) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    match state.datasets.refreshing(topic.id) {
        Some(refreshing) => told(refreshing, limits::ADMIN_WAIT).await,
        None => missing("its source was not listed again since the broker was started"),
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

#[derive(Deserialize)]
pub(super) struct Sought {
    key: String,
    #[serde(default)]
    epoch: u32,
    object: Option<String>,
    after: Option<Cursor>,
    limit_bytes: Option<u64>,
}

pub(super) async fn find_key(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(sought): Query<Sought>,
) -> Response {
    let topic = match find(&state, &name).await {
        Ok(topic) => topic,
        Err(response) => return response,
    };
    let Sought { key, epoch, object, after, limit_bytes } = sought;
    let wanted = Wanted { key, epoch, object, after, limit_bytes };
    match state.datasets.find(&topic, wanted).await {
        Ok(found) => Json(found).into_response(),
        Err(error) => not_searched(&error),
    }
}

fn not_searched(error: &FindError) -> Response {
    let status = match error {
        FindError::NoDataset(_) | FindError::NoObject(_) => StatusCode::NOT_FOUND,
        FindError::NoEpoch { .. } | FindError::NoKeys(_) => StatusCode::UNPROCESSABLE_ENTITY,
        FindError::Busy => StatusCode::TOO_MANY_REQUESTS,
        FindError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string() + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Duration, Refreshing, StatusCode, StatusError, told};
    use crate::dataset::ListError;

    /// It was 408 after 30 seconds, and nothing told what became of it.
    #[tokio::test(start_paused = true)]
    async fn a_long_listing_is_asked_about_until_it_is_over() {
        let (sender, refreshing) = Refreshing::new(5);
        let most = Duration::from_secs(20);
        assert_eq!(told(refreshing.clone(), most).await.status(), StatusCode::ACCEPTED);
        let asked = tokio::spawn(told(refreshing.clone(), most));
        sender.send_replace(Some(Arc::new(Ok(Default::default()))));
        assert_eq!(asked.await.expect("an answer").status(), StatusCode::OK);
        let (sender, refreshing) = Refreshing::new(5);
        let changed = StatusError::List(ListError("a.tar was changed".to_owned()));
        sender.send_replace(Some(Arc::new(Err(changed))));
        assert_eq!(told(refreshing, most).await.status(), StatusCode::CONFLICT);
    }
}
