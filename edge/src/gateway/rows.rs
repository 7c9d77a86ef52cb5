//! The server core's durable changes as rows of the state file, and back.

use robustmq_common::mqtt::server::{InvalidRow, Row, StateChange};

use crate::state::Change;

/// What the state file has to change.
pub(super) fn to_changes(changes: &[StateChange]) -> Vec<Change> {
    let change = |change: &StateChange| match change.to_row() {
        Row::Put { key, value } => Change::Put { key, value },
        Row::Delete { key } => Change::Delete { key },
        Row::DeletePrefix { prefix } => Change::DeletePrefix { prefix },
    };
    changes.iter().map(change).collect()
}

/// A row of the state file as the change that wrote it.
pub(super) fn from_row(key: &[u8], value: &[u8]) -> Result<StateChange, InvalidRow> {
    StateChange::from_row(key, value)
}
