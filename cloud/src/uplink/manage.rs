//! What `robustmq-cloud edge list | add | remove` talks to, for the admin listener.
//!
//! ```text
//! GET    /v1/edges[?after=ID]      -> [{"edge", "write", "status"}], in order, one page
//! POST   /v1/edges                 {"edge": ID, "write": ["topic" or "prefix*", ...]} -> {"edge", "token"}, told this once
//! DELETE /v1/edges/{edge}          -> 204, or 404
//! ```

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use robustmq_common::ids::EdgeId;
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

/// One registered edge, as `edge list --json` shows it.
#[derive(Debug, Serialize)]
pub struct ListedEdge {
    /// Its id.
    pub edge: EdgeId,
    /// The topics that it may write to.
    pub write: Vec<String>,
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
}

fn failed(error: &StoreError) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}

async fn list(State(manage): State<Manage>, Query(page): Query<Page>) -> Response {
    let listed = async {
        let mut listed = Vec::new();
        for (edge, rights) in manage.tokens.list(page.after.as_ref()).await? {
            let status = manage.ingest.status(&edge).await?;
            listed.push(ListedEdge { edge, write: rights.write, status });
        }
        Ok(listed)
    };
    match listed.await {
        Ok(listed) => Json(listed).into_response(),
        Err(error) => failed(&error),
    }
}

async fn add(State(manage): State<Manage>, Json(asked): Json<AddEdge>) -> Response {
    let rights = Rights { write: asked.write };
    match manage.tokens.add(&asked.edge, rights).await {
        Ok(token) => {
            let added = AddedEdge { edge: asked.edge, token };
            (StatusCode::CREATED, Json(added)).into_response()
        }
        Err(error @ TokenError::Exists(_)) => {
            (StatusCode::CONFLICT, format!("{error}\n")).into_response()
        }
        Err(TokenError::Store(error)) => failed(&error),
    }
}

async fn remove(State(manage): State<Manage>, Path(edge): Path<String>) -> Response {
    let Ok(edge) = EdgeId::new(&edge) else { return StatusCode::NOT_FOUND.into_response() };
    match manage.tokens.remove(&edge).await {
        Ok(existed) => {
            let status = if existed { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
            status.into_response()
        }
        Err(error) => failed(&error),
    }
}
