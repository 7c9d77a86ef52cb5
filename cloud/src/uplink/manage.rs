//! What `robustmq-cloud edge list | add | remove` talks to, for the admin listener.
//!
//! ```text
//! GET    /v1/edges[?after=ID]      -> [{"edge", "registered", "write", "refused", "status"}], in order, one page
//! POST   /v1/edges                 {"edge": ID, "write": ["topic" or "prefix*", ...]} -> {"edge", "token", "first_token", "without_token"}, told this once; 400, 409
//! DELETE /v1/edges/{edge}          -> 204, or 404
//! ```

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use robustmq_common::ids::EdgeId;
use robustmq_common::limits;
use serde::{Deserialize, Serialize};

use super::ingest::{EdgeStatus, Ingest};
use super::rights::Rights;
use super::tokens::{TokenError, Tokens};
use crate::store::StoreError;

#[derive(Clone)]
struct Manage {
    tokens: Tokens,
    ingest: Ingest,
}

/// The routes. The admin listener decides who may reach them.
pub fn manage_router(tokens: Tokens, ingest: Ingest) -> Router {
    Router::new()
        .route("/v1/edges", get(list).post(add))
        .route("/v1/edges/{edge}", delete(remove))
        .with_state(Manage { tokens, ingest })
}

/// One edge that is registered, connected or was refused lately, as `edge list --json` shows it.
#[derive(Debug, Serialize)]
pub struct ListedEdge {
    /// Its id.
    pub edge: EdgeId,
    /// Whether it has a token.
    pub registered: bool,
    /// The topics that it may write to; empty if it is not registered.
    pub write: Vec<String>,
    /// Why it was refused, if it was within the session timeout.
    pub refused: Option<String>,
    /// What the uplink knows of it.
    pub status: EdgeStatus,
}

#[derive(Debug, Deserialize)]
struct Page {
    after: Option<EdgeId>,
}

/// What `edge add` asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddEdge {
    /// The new edge's id.
    pub edge: EdgeId,
    /// The topics that it may write to; all if left out.
    #[serde(default = "everything")]
    pub write: Vec<String>,
}

fn everything() -> Vec<String> {
    Rights::all().write
}

/// What `edge add` is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct AddedEdge {
    /// The edge's id.
    pub edge: EdgeId,
    /// Its token: not kept, and not told again.
    pub token: String,
    /// No edge was registered before: from now on each has to show a token.
    #[serde(default)]
    pub first_token: bool,
    /// Edges that are connected without a token and are refused from now on, at most [`limits::UPLINK_LISTED_EDGES`].
    #[serde(default)]
    pub without_token: Vec<EdgeId>,
}

fn failed(error: &StoreError) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}

async fn list(State(manage): State<Manage>, Query(page): Query<Page>) -> Response {
    match listed(&manage, page.after.as_ref()).await {
        Ok(listed) => Json(listed).into_response(),
        Err(error) => failed(&error),
    }
}

/// One page: registered edges, and between them those that are connected, or were refused lately, without being registered.
async fn listed(manage: &Manage, after: Option<&EdgeId>) -> Result<Vec<ListedEdge>, StoreError> {
    let registered = manage.tokens.list(after).await?;
    // Where the page of registered edges is full, nothing is known of who comes after it.
    let last = match registered.len() >= limits::UPLINK_LISTED_EDGES {
        true => registered.last().map(|(edge, _)| edge.clone()),
        false => None,
    };
    let mut refused = manage.ingest.refused();
    let mut shown: BTreeMap<EdgeId, Option<Rights>> = manage
        .ingest
        .connected()
        .into_iter()
        .chain(refused.keys().cloned())
        .map(|e| (e, None))
        .collect();
    shown.retain(|edge, _| {
        after.is_none_or(|after| edge > after) && last.as_ref().is_none_or(|last| edge <= last)
    });
    shown.extend(registered.into_iter().map(|(edge, rights)| (edge, Some(rights))));
    let mut listed = Vec::new();
    for (edge, rights) in shown.into_iter().take(limits::UPLINK_LISTED_EDGES) {
        let status = manage.ingest.status(&edge).await?;
        listed.push(ListedEdge {
            registered: rights.is_some(),
            write: rights.map(|rights| rights.write).unwrap_or_default(),
            refused: refused.remove(&edge).map(|why| why.to_string()),
            edge,
            status,
        });
    }
    Ok(listed)
}

async fn add(State(manage): State<Manage>, Json(asked): Json<AddEdge>) -> Response {
    let rights = match Rights::new(asked.write) {
        Ok(rights) => rights,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let first_token = match manage.tokens.any().await {
        Ok(any) => !any,
        Err(error) => return failed(&error),
    };
    // With others registered, who shows no token is refused already.
    let connected = if first_token { manage.ingest.connected() } else { BTreeSet::new() };
    let without_token = connected.into_iter().take(limits::UPLINK_LISTED_EDGES).collect();
    match manage.tokens.add(&asked.edge, rights).await {
        Ok(token) => {
            let added = AddedEdge { edge: asked.edge, token, first_token, without_token };
            (StatusCode::CREATED, Json(added)).into_response()
        }
        Err(error @ TokenError::Exists(_)) => {
            (StatusCode::CONFLICT, format!("{error}\n")).into_response()
        }
        Err(TokenError::Store(error)) => failed(&error),
    }
}

async fn remove(State(manage): State<Manage>, Path(edge): Path<String>) -> Response {
    let missing = || (StatusCode::NOT_FOUND, "there is no such edge\n").into_response();
    let Ok(edge) = EdgeId::new(&edge) else { return missing() };
    match manage.tokens.remove(&edge).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => missing(),
        Err(error) => failed(&error),
    }
}
