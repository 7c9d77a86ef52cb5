//! Opens what is on disk: the queue, and the state that is brought up to date with it.

use std::sync::Arc;

use robustmq_common::mqtt::server::{Server, ServerSettings};
use robustmq_common::net::StartError;

use super::clock::ServerClock;
use super::policy::EdgePolicy;
use super::replay;
use super::route::Routes;
use super::users::Users;
use crate::queue::{Queue, SystemClock};
use crate::settings::Settings;
use crate::state::{ChangeSet, Positions, Progress, State, StateFile};

fn failed(error: impl std::fmt::Display) -> StartError {
    StartError::Failed(error.to_string())
}

/// Opens the queue, and says what a crash or the disk has cost.
pub(super) fn queue(settings: &Settings) -> Result<Queue, StartError> {
    let (queue, recovered) =
        Queue::open(&settings.queue_dir(), settings.queue_settings()).map_err(failed)?;
    for lane in &recovered.lanes {
        if lane.truncated_bytes > 0 {
            tracing::warn!(
                lane = lane.lane.0,
                bytes = lane.truncated_bytes,
                "an interrupted append was cut off; nobody was told that it was taken"
            );
        }
    }
    for damage in &recovered.damage {
        tracing::error!(
            lane = damage.lane.0,
            segment = damage.segment,
            at_byte = damage.at_byte,
            from = damage.from.0,
            to = damage.to.0,
            "a queue segment is damaged: records from `from` to before `to` cannot be read back"
        );
    }
    for note in &recovered.notes {
        tracing::warn!(note, "queue");
    }
    Ok(queue)
}

/// The server core as it was, and what it goes on with.
pub(super) struct Restored {
    pub server: Server,
    pub clock: ServerClock<SystemClock>,
    pub state: State,
    /// What the server core's state reflects.
    pub positions: Positions,
}

/// Brings the server core to where it was before the last end, however that came.
pub(super) async fn state(
    settings: &Settings,
    queue: &Queue,
    routes: &Arc<Routes>,
    users: Option<Arc<Users>>,
) -> Result<Restored, StartError> {
    let file = StateFile::open(&settings.state_file()).map_err(failed)?;
    let clock = ServerClock::resume(SystemClock::new(), file.clock().map_err(failed)?);
    let server_settings = ServerSettings {
        max_packet_bytes: settings.mqtt.max_packet_bytes,
        assigned_id_prefix: assigned_id_prefix(),
        ..ServerSettings::default()
    };
    let policy = EdgePolicy { routes: Arc::clone(routes), users };
    let mut server = Server::new(server_settings, Arc::new(policy));
    let replayed = replay::restore(&mut server, &file, queue, &clock).map_err(failed)?;
    tracing::info!(
        rows = replayed.rows,
        bad_rows = replayed.bad_rows,
        records = replayed.records,
        bad_records = replayed.bad_records,
        "state restored"
    );
    let state = file.start().map_err(failed)?;
    if replayed.continues {
        for (lane, sequence) in &replayed.saved {
            queue.reflected(*lane, *sequence);
        }
    } else {
        adopt_queue(&state, queue, &replayed.positions).await?;
    }
    Ok(Restored { server, clock, state, positions: replayed.positions })
}

/// Client ids are Kafka keys: those that are made up here must not be those of another start, nor of another gateway. Random, since a
/// machine without a battery-backed clock may know no more after a crash than it did before.
fn assigned_id_prefix() -> Arc<str> {
    format!("auto-{:016x}-", rand::random::<u64>()).into()
}

/// Nothing was replayed, so the state is up to date with this queue as it is: says so, durably.
async fn adopt_queue(state: &State, queue: &Queue, ends: &Positions) -> Result<(), StartError> {
    let ticket = state.submit(ChangeSet {
        reflects: ends.iter().map(|(lane, end)| (*lane, *end)).collect(),
        queue_store: Some(replay::store_mark(queue)),
        ..ChangeSet::default()
    });
    let mut progress = state.progress();
    let done = |progress: &Progress| {
        progress.committed >= ticket || progress.failing.is_some() || progress.closed
    };
    let reached = progress.wait_for(done).await.map_err(failed)?.clone();
    if reached.committed < ticket {
        let reason = reached.failing.unwrap_or_else(|| "its writer has ended".to_owned());
        return Err(failed(format!("the state cannot be written: {reason}")));
    }
    for (lane, end) in ends {
        queue.reflected(*lane, *end);
    }
    Ok(())
}
