//! Snapshots of what a group has acknowledged, and going back to one.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::{State, no_group, unavailable};
use crate::group::coordinator::CoordinatorError;
use crate::group::shared::coordinator::SharedGroups;
use crate::group::shared::pools::PoolError;
use crate::group::shared::snapshots::SnapshotError;
use crate::store::keys::partition::PartitionKeys;

#[derive(Deserialize)]
pub(super) struct Take {
    #[serde(default)]
    replace: bool,
}

fn refused(error: &SnapshotError) -> Response {
    let status = match error {
        SnapshotError::NoGroup(_) | SnapshotError::Unknown { .. } => StatusCode::NOT_FOUND,
        SnapshotError::Exists { .. } => StatusCode::CONFLICT,
        SnapshotError::NotSharing(_)
        | SnapshotError::Name
        | SnapshotError::TooMany(_)
        | SnapshotError::TooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        SnapshotError::Busy(_) | SnapshotError::Group(_) | SnapshotError::Pool(_) => {
            return unavailable(error);
        }
    };
    (status, error.to_string() + "\n").into_response()
}

/// The groups that share records, and the partitions on which one has begun, which has to be such a group.
async fn of<'a>(
    state: &'a State,
    group: &str,
) -> Result<(&'a SharedGroups, Vec<PartitionKeys>), SnapshotError> {
    let none = || SnapshotError::NoGroup(group.to_owned());
    let sharing = state.groups.sharing().ok_or_else(none)?;
    let known = match state.groups.all_committed(group).await {
        Err(CoordinatorError::InvalidGroupId { .. }) => return Err(none()),
        known => known?,
    };
    let keys = known.into_iter().map(|(topic, partition, _)| PartitionKeys { topic, partition });
    let keys: Vec<_> = keys.collect();
    sharing.check_sharing(group, &keys).await?;
    Ok((sharing, keys))
}

pub(super) async fn list(Shared(state): Shared<State>, Path(group): Path<String>) -> Response {
    let Some(sharing) = state.groups.sharing() else {
        return refused(&SnapshotError::NoGroup(group));
    };
    match sharing.snapshots(&group).await {
        Ok(listed) if listed.is_empty() && !is_there(&state, &group).await => no_group(&group),
        Ok(listed) => Json(listed).into_response(),
        Err(error) => refused(&error),
    }
}

/// Whether anybody has ever heard of a group. What cannot be read is.
async fn is_there(state: &State, group: &str) -> bool {
    match state.groups.describe(group).await {
        Ok(None) => !state.groups.all_committed(group).await.is_ok_and(|known| known.is_empty()),
        Err(CoordinatorError::InvalidGroupId { .. }) => false,
        Ok(Some(_)) | Err(_) => true,
    }
}

pub(super) async fn take(
    Shared(state): Shared<State>,
    Path((group, name)): Path<(String, String)>,
    Query(wish): Query<Take>,
) -> Response {
    let now_ms = crate::group::shared::snapshots::wall_ms();
    let taken = async {
        let (sharing, partitions) = of(&state, &group).await?;
        sharing.take_snapshot(&group, &name, wish.replace, &partitions, now_ms).await
    };
    match taken.await {
        Ok(taken) => Json(taken).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn rewind(
    Shared(state): Shared<State>,
    Path((group, name)): Path<(String, String)>,
) -> Response {
    let log = state.log.clone();
    let rewound = log.finish(async move {
        let (sharing, partitions) = of(&state, &group).await?;
        let mut topics = sharing.snapshot_topics(&group, &name).await?;
        topics.extend(partitions.iter().map(|keys| keys.topic));
        let mut deleted = BTreeSet::new();
        for topic in topics {
            if state.topics.get_by_id(topic).await.map_err(PoolError::from)?.is_none() {
                deleted.insert(topic);
            }
        }
        sharing.rewind(&group, &name, &partitions, &deleted).await
    });
    match rewound.await {
        Ok(rewound) => Json(rewound).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn delete(
    Shared(state): Shared<State>,
    Path((group, name)): Path<(String, String)>,
) -> Response {
    let Some(sharing) = state.groups.sharing() else {
        return refused(&SnapshotError::NoGroup(group));
    };
    match sharing.delete_snapshot(&group, &name).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&error),
    }
}
