//! The task that owns the MQTT server core: feeds it what connections, disks and the clock say, and carries out its actions.
//!
//! **Invariant:** the queue's answers reach the core in the order of the appends, so a position that the core says its
//! state reflects covers every record before it.
//! **Invariant:** nothing is taken from connections while the disks are behind; what is already known goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::admin::Component;
use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_common::limits;
use robustmq_common::mqtt::packet::ReasonCode;
use robustmq_common::mqtt::server::{
    Action, ConnId, Counters, Gauges, PersistTicket, PublishRecord, Server, StateChange,
    StoreRefusal, StoreTicket,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::ServerClock;
use super::connection::Input;
use super::outbox::Outbox;
use super::record;
use super::route::Routes;
use super::rows;
use super::sys::SysTopics;
use crate::queue::{Append, AppendError, PendingAppend, Queue, SystemClock};
use crate::state::{ChangeSet, CommitTicket, Positions, Progress, State};

/// What the hub knows at one moment, for status and metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Since the start.
    pub counters: Counters,
    /// Now.
    pub gauges: Gauges,
}

/// Why the hub ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The state's writer is gone, so nothing can be promised any more.
    #[error("the writer of the state has ended")]
    StateWriter,
}

/// What the hub is made of.
pub(super) struct Parts {
    pub server: Server,
    pub clock: ServerClock<SystemClock>,
    pub queue: Queue,
    pub state: State,
    pub routes: Arc<Routes>,
    /// The queue keeps what no saved state reflects: after so many bytes one is saved for that alone.
    pub checkpoint_bytes: u64,
    /// What the restored and replayed state reflects.
    pub positions: Positions,
    pub figures: watch::Sender<Figures>,
    pub sys: SysTopics,
    /// Says that the queue takes records.
    pub queue_ready: Component,
}

/// One append whose answer the core waits for.
struct Storing {
    ticket: StoreTicket,
    lane: LaneId,
    outcome: Outcome,
}

enum Outcome {
    Pending(PendingAppend),
    Refused(StoreRefusal),
}

struct Persisting {
    ticket: PersistTicket,
    commit: CommitTicket,
    positions: Positions,
}

/// The hub.
pub(super) struct Hub {
    parts: Parts,
    progress: watch::Receiver<Progress>,
    connections: HashMap<ConnId, Outbox>,
    /// Appends for which the queue had no room, in order.
    deferred: VecDeque<(StoreTicket, Append)>,
    storing: VecDeque<Storing>,
    /// Appends that the core has been told of, and that no persisted state reflects yet.
    stored: VecDeque<(StoreTicket, LaneId, EdgeSeq)>,
    persisting: VecDeque<Persisting>,
    /// Appended since the last persisted state.
    unreflected_bytes: u64,
    /// Something is stored that no persisted state reflects; one is saved then.
    checkpoint_at: Option<Instant>,
    /// The figures have changed and are published then.
    publish_at: Option<Instant>,
    refused: bool,
    /// The state cannot be written for now.
    failing: bool,
    /// Stopping: until then at the latest.
    stop_at: Option<Instant>,
}

impl Hub {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            progress: parts.state.progress(),
            parts,
            connections: HashMap::new(),
            deferred: VecDeque::new(),
            storing: VecDeque::new(),
            stored: VecDeque::new(),
            persisting: VecDeque::new(),
            unreflected_bytes: 0,
            checkpoint_at: None,
            publish_at: None,
            refused: false,
            failing: false,
            stop_at: None,
        }
    }

    /// Runs until `shutdown`, then until everything that was promised is durable and said, or [`limits::EDGE_DRAIN`] has
    /// passed. Gives the state back, to be closed.
    ///
    /// # Errors
    /// [`HubError`] when it cannot go on.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        shutdown: CancellationToken,
    ) -> Result<State, HubError> {
        let mut batch = Vec::with_capacity(limits::EDGE_HUB_INPUTS_AT_ONCE);
        let mut inputs_end = false;
        loop {
            self.act();
            if self.stop_at.is_some_and(|at| self.is_idle() || at <= Instant::now()) {
                return Ok(self.finish());
            }
            let wake_at = self.wake_at();
            let takes_input = self.listen() && !inputs_end;
            let works = self.parts.server.has_work();
            // One event, and a bit of what takes long.
            if works {
                self.parts.server.work(self.parts.clock.now());
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if self.stop_at.is_none() => self.begin_to_stop(),
                outcome = next_stored(&mut self.storing), if !self.storing.is_empty() => {
                    self.stored(outcome);
                }
                changed = self.progress.changed() => {
                    if changed.is_err() || self.progress.borrow().closed {
                        self.connections.values().for_each(|c| c.close(ReasonCode::UnspecifiedError));
                        return Err(HubError::StateWriter);
                    }
                    self.committed();
                }
                () = tokio::time::sleep_until(wake_at) => self.wake(),
                () = self.parts.queue.room(), if !self.deferred.is_empty() => self.append_deferred(),
                count = inputs.recv_many(&mut batch, limits::EDGE_HUB_INPUTS_AT_ONCE), if takes_input => {
                    if count == 0 {
                        // Listener and connections are gone; only stopping is left.
                        inputs_end = true;
                        self.begin_to_stop();
                    }
                    for input in batch.drain(..) {
                        self.take(input);
                    }
                    // Also where nothing has to be done: a connection that ended counts.
                    self.figures_changed();
                }
                () = tokio::task::yield_now(), if works => {}
            }
        }
    }

    /// Whether input is taken: not while the disks are behind. The core has to know, lest it take clients that are not heard
    /// for silent ones.
    fn listen(&mut self) -> bool {
        // While the state's disk fails, the core refuses what needs it, and all else is served.
        let state_has_room = self.failing || !self.parts.state.is_saturated();
        let listening = self.deferred.is_empty() && state_has_room;
        self.parts.server.set_listening(self.parts.clock.now(), listening);
        listening
    }

    fn take(&mut self, input: Input) {
        let now = self.parts.clock.now();
        let server = &mut self.parts.server;
        match input {
            Input::Connected { outbox, .. } if self.stop_at.is_some() => {
                outbox.close(ReasonCode::ServerShuttingDown);
            }
            Input::Connected { conn, peer, outbox } => {
                self.connections.insert(conn, outbox);
                server.connected(now, conn, peer);
            }
            Input::Packet { conn, packet, charge } => {
                server.recv(now, conn, packet);
                drop(charge);
            }
            Input::Malformed { conn, error } => {
                tracing::debug!(conn = conn.0, %error, "malformed packet");
                server.malformed(now, conn, &error);
            }
            Input::Unread { conn, unread } => server.set_unread(conn, unread),
            Input::Written { conn, bytes } => server.written(now, conn, bytes),
            Input::Closed { conn, reason } => {
                self.connections.remove(&conn);
                server.closed(now, conn, reason);
            }
        }
    }

    /// Carries out what the core asks for.
    fn act(&mut self) {
        let mut acted = false;
        while let Some(action) = self.parts.server.poll() {
            acted = true;
            match action {
                Action::Send { conn, packet, bytes: _ } => {
                    if let Some(outbox) = self.connections.get(&conn) {
                        outbox.send(packet);
                    }
                }
                Action::Close { conn, reason } => {
                    tracing::debug!(conn = conn.0, ?reason, "connection closed");
                    if let Some(outbox) = self.connections.remove(&conn) {
                        outbox.close(reason);
                    }
                }
                Action::Pause { conn } => self.set_paused(conn, true),
                Action::Resume { conn } => self.set_paused(conn, false),
                Action::Store { ticket, record } => self.store(ticket, &record),
                Action::Persist { ticket, reflects, changes } => {
                    self.persist(ticket, reflects, &changes);
                }
                // Nobody publishes locally yet: the downlink will wait for it.
                Action::LocalDone { ticket: _ } => {}
            }
        }
        if acted {
            self.figures_changed();
        }
    }

    fn figures_changed(&mut self) {
        let at = Instant::now() + limits::EDGE_FIGURES;
        self.publish_at.get_or_insert(at);
    }

    fn set_paused(&self, conn: ConnId, paused: bool) {
        if let Some(outbox) = self.connections.get(&conn) {
            outbox.set_paused(paused);
        }
    }

    fn store(&mut self, ticket: StoreTicket, record: &PublishRecord) {
        let route = self.parts.routes.find(&record.topic);
        match record::to_append(record, route) {
            Ok(append) if self.deferred.is_empty() => self.append(ticket, append),
            Ok(append) => self.deferred.push_back((ticket, append)),
            Err(error) => {
                tracing::warn!(client = %record.client_id, topic = %record.topic, %error, "publish refused");
                let outcome = Outcome::Refused(StoreRefusal::Full);
                self.storing.push_back(Storing { ticket, lane: route.lane, outcome });
            }
        }
    }

    fn append(&mut self, ticket: StoreTicket, append: Append) {
        let bytes = append.body.len();
        let outcome = match self.parts.queue.append(&append) {
            Ok(pending) => {
                self.count_unreflected(bytes);
                Outcome::Pending(pending)
            }
            Err(AppendError::Busy { .. }) => {
                self.deferred.push_front((ticket, append));
                return;
            }
            Err(error) => Outcome::Refused(self.refusal(&error)),
        };
        self.storing.push_back(Storing { ticket, lane: append.lane, outcome });
    }

    fn count_unreflected(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.unreflected_bytes = self.unreflected_bytes.saturating_add(bytes);
        let soon = self.unreflected_bytes >= self.parts.checkpoint_bytes;
        let at = Instant::now() + if soon { Duration::ZERO } else { limits::EDGE_CHECKPOINT };
        self.checkpoint_at = Some(self.checkpoint_at.map_or(at, |planned| planned.min(at)));
    }

    /// Appends what waited for room, in order, as long as there is some.
    fn append_deferred(&mut self) {
        let waiting = self.deferred.len();
        for _ in 0..waiting {
            let Some((ticket, append)) = self.deferred.pop_front() else { return };
            let before = self.deferred.len();
            self.append(ticket, append);
            if self.deferred.len() > before {
                return;
            }
        }
    }

    fn stored(&mut self, (ticket, lane, result): (StoreTicket, LaneId, Stored)) {
        let result = match result {
            Stored::Synced(sequence) => {
                self.stored.push_back((ticket, lane, sequence));
                if std::mem::take(&mut self.refused) {
                    tracing::info!("the queue takes records again");
                    self.parts.queue_ready.ready();
                }
                Ok(())
            }
            Stored::Refused(refusal) => Err(refusal),
            Stored::Failed(error) => Err(self.refusal(&error)),
        };
        let now = self.parts.clock.now();
        self.parts.server.stored(now, ticket, result);
    }

    /// What the core is told, and a person once.
    fn refusal(&mut self, error: &AppendError) -> StoreRefusal {
        if !std::mem::replace(&mut self.refused, true) {
            tracing::error!(%error, "publishes are refused");
        }
        self.parts.queue_ready.not_ready(error.to_string());
        // There may be segments that the queue keeps only until a saved state reflects them.
        self.checkpoint_at = Some(Instant::now());
        match error {
            AppendError::Full { .. }
            | AppendError::DiskFull { .. }
            | AppendError::Busy { .. }
            | AppendError::TooLarge { .. } => StoreRefusal::Full,
            AppendError::Poisoned { .. } | AppendError::NoLane { .. } | AppendError::Closed => {
                StoreRefusal::Failed
            }
        }
    }

    fn persist(
        &mut self,
        ticket: PersistTicket,
        reflects: Option<StoreTicket>,
        changes: &[StateChange],
    ) {
        while let Some((stored, lane, sequence)) = self.stored.front().copied()
            && reflects.is_some_and(|through| stored <= through)
        {
            self.parts.positions.insert(lane, sequence);
            self.stored.pop_front();
        }
        self.unreflected_bytes = 0;
        self.checkpoint_at =
            (!self.storing.is_empty()).then(|| Instant::now() + limits::EDGE_CHECKPOINT);
        let positions = self.parts.positions.clone();
        let commit = self.parts.state.submit(ChangeSet {
            changes: rows::to_changes(changes),
            reflects: positions.iter().map(|(lane, sequence)| (*lane, *sequence)).collect(),
            clock: Some(self.parts.clock.save()),
            queue_store: None,
        });
        self.persisting.push_back(Persisting { ticket, commit, positions });
    }

    fn committed(&mut self) {
        let (committed, failing) = {
            let progress = self.progress.borrow_and_update();
            (progress.committed, progress.failing.is_some())
        };
        while let Some(front) = self.persisting.front()
            && front.commit <= committed
        {
            let Some(done) = self.persisting.pop_front() else { return };
            let now = self.parts.clock.now();
            self.parts.server.persisted(now, done.ticket);
            for (lane, sequence) in done.positions {
                self.parts.queue.reflected(lane, sequence);
            }
        }
        self.failing = failing;
        self.parts.server.set_failing(self.parts.clock.now(), failing);
    }

    /// When there is something to do without anything happening.
    fn wake_at(&self) -> Instant {
        let now = self.parts.clock.now();
        let deadline = self.parts.server.next_deadline();
        let timer = deadline.map(|deadline| Instant::now() + now.until(deadline));
        let (sys, others) = (self.parts.sys.next_at(), [self.publish_at, self.checkpoint_at]);
        let soonest = others.into_iter().chain([timer, sys, self.stop_at]).flatten().min();
        soonest.unwrap_or_else(|| Instant::now() + FAR)
    }

    fn wake(&mut self) {
        let now = self.parts.clock.now();
        if self.parts.server.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.parts.server.timer(now);
            self.figures_changed();
        }
        self.parts.sys.publish_if_due(&mut self.parts.server, now);
        if self.checkpoint_at.is_some_and(|at| at <= Instant::now()) {
            self.checkpoint_at = None;
            self.parts.server.checkpoint();
        }
        if self.publish_at.is_some_and(|at| at <= Instant::now()) {
            self.publish_at = None;
            self.publish_figures();
        }
    }

    fn publish_figures(&self) {
        let server = &self.parts.server;
        let figures = Figures { counters: server.counters(), gauges: server.gauges() };
        self.parts.figures.send_replace(figures);
    }

    fn begin_to_stop(&mut self) {
        if self.stop_at.is_some() {
            return;
        }
        let now = self.parts.clock.now();
        self.stop_at = Some(Instant::now() + limits::EDGE_DRAIN);
        self.parts.sys.stop();
        self.parts.server.shutdown(now);
    }

    fn is_idle(&self) -> bool {
        self.connections.is_empty()
            && self.storing.is_empty()
            && self.deferred.is_empty()
            && self.persisting.is_empty()
    }

    fn finish(self) -> State {
        self.publish_figures();
        let Parts { state, clock, .. } = self.parts;
        state.submit(ChangeSet { clock: Some(clock.save()), ..ChangeSet::default() });
        state
    }
}

/// Far enough to never matter, near enough to never overflow.
const FAR: Duration = Duration::from_secs(24 * 3600);

enum Stored {
    Synced(EdgeSeq),
    Refused(StoreRefusal),
    Failed(AppendError),
}

/// The answer to the oldest append. Cancelling it loses nothing.
async fn next_stored(storing: &mut VecDeque<Storing>) -> (StoreTicket, LaneId, Stored) {
    let Some(front) = storing.front_mut() else { return std::future::pending().await };
    let (ticket, lane) = (front.ticket, front.lane);
    let stored = match &mut front.outcome {
        Outcome::Refused(refusal) => Stored::Refused(*refusal),
        Outcome::Pending(pending) => match pending.await {
            Ok(sequence) => Stored::Synced(sequence),
            Err(error) => Stored::Failed(error),
        },
    };
    storing.pop_front();
    (ticket, lane, stored)
}
