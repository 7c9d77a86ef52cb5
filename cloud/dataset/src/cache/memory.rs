//! What is in memory, and what is on its way there. No IO, no clock: [`super::front`] calls it under its lock.
//!
//! An extent enters the **pool**, whether it was read ahead or somebody waits for it, and is there until its reader has read past it. Then
//! it stays (as a **resident**) if it ranks, or goes as soon as its room is needed: until then it is there for whoever reads a little behind.
//! The pool has room of its own, so that reading ahead pushes out nothing that stays.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use robustmq_common::limits;
use tokio::time::Instant;

use super::lent::{Lent, Loan};
use super::ranks::{Rank, Ranks};
use super::scene::{Changes, Displaced, Scene};
use super::users::UserId;
use super::working::AtWork;
use super::{ExtentId, Outcome};
use crate::layout::Extent;

mod passed;
mod shares;
mod strain;
mod turns;

use self::shares::is_idle;
pub(super) use self::shares::{ahead_bytes, cost, extent_bytes, working_bytes};
use self::strain::Strain;
use self::turns::Turns;

/// An extent in memory.
#[derive(Debug)]
struct Held {
    extent: Arc<Extent>,
    bytes: usize,
    user: UserId,
    place: Place,
    /// When it was asked for last; `None` before, and when its reader has passed it.
    read: Option<Instant>,
    /// What came from the source for its next read.
    source_bytes: u32,
    /// Another user who will read it too, and when it said so.
    next_user: Option<(UserId, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Resident,
    Pool { tick: u64 },
}

/// An extent on its way.
#[derive(Debug)]
pub(super) struct Loading {
    pub outcome: Outcome,
    user: UserId,
    /// Its place in the pool; 0 while it waits for it, or where it has another.
    pool_bytes: usize,
    /// Its place among those that stay, which there is room for.
    free_bytes: usize,
    /// Whether somebody waits for it.
    is_waited_for: bool,
}

/// An extent that was found.
#[derive(Debug)]
pub(super) struct Hit {
    pub extent: Arc<Extent>,
    /// It is a read that was not counted yet: so many bytes came from the source for it.
    pub begins: Option<u32>,
}

/// The pool's entries by when they were asked for last or came: the tick, and the time.
type Order = BTreeMap<u64, (ExtentId, Instant)>;

#[derive(Debug)]
pub(super) struct Memory {
    budget_bytes: usize,
    held: HashMap<ExtentId, Held>,
    residents: Ranks,
    /// Ready, and on its way.
    pool_bytes: usize,
    /// What is being read.
    current: Order,
    /// What nobody has asked for yet.
    ahead: Order,
    /// What its reader is past.
    passed: Order,
    tick: u64,
    loads: HashMap<ExtentId, Loading>,
    /// Of those that are loaded, what has its place among those that stay.
    free_loading_bytes: usize,
    /// What is being sent.
    pub(super) lent: Lent,
    /// Who waits for room in the pool.
    turns: Turns,
    /// What was being read when it went.
    strain: Strain,
    /// What waits to be written to SSD may take so much.
    queue_bytes: usize,
    /// What is worked in beside the cache.
    working: Arc<AtWork>,
    /// Memory of an extent for a thousand bytes of its content, as it was lately: a layout of short records is as large as they are.
    share: usize,
}

impl Memory {
    /// `queue_bytes` of it are for what waits to be written to SSD, and a part of read-ahead's room is for what is `working`.
    pub(super) fn new(budget_bytes: usize, queue_bytes: usize, working: Arc<AtWork>) -> Self {
        Self {
            budget_bytes,
            queue_bytes,
            working,
            turns: Turns::default(),
            strain: Strain::default(),
            held: HashMap::new(),
            residents: Ranks::default(),
            pool_bytes: 0,
            current: Order::new(),
            ahead: Order::new(),
            passed: Order::new(),
            tick: 0,
            loads: HashMap::new(),
            free_loading_bytes: 0,
            lent: Lent::default(),
            share: 1000,
        }
    }

    pub(super) fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// What of that nothing has taken yet.
    pub(super) fn free_bytes(&self) -> u64 {
        let on_their_way = self.free_loading_bytes + self.turns.pieces_bytes;
        self.resident_room().saturating_sub(self.residents.bytes() + on_their_way as u64)
    }

    pub(super) fn residents(&self) -> &Ranks {
        &self.residents
    }

    /// What is read ahead, read, sent and fetched to be indexed.
    pub(super) fn on_their_way_bytes(&self) -> usize {
        self.pool_bytes + self.lent.outside_bytes() + self.turns.pieces_bytes
    }

    #[cfg(test)]
    pub(super) fn pool_bytes(&self) -> usize {
        self.pool_bytes
    }

    #[cfg(test)]
    pub(super) fn free_loading_bytes(&self) -> usize {
        self.free_loading_bytes
    }

    pub(super) fn loads(&self) -> usize {
        self.loads.len()
    }

    pub(super) fn is_resident(&self, id: ExtentId) -> bool {
        self.held.get(&id).is_some_and(|held| matches!(held.place, Place::Resident))
    }

    pub(super) fn contains(&self, id: ExtentId) -> bool {
        self.held.contains_key(&id)
    }

    pub(super) fn extent(&self, id: ExtentId) -> Option<Displaced> {
        let held = self.held.get(&id)?;
        Some(Displaced { id, user: held.user, extent: Arc::clone(&held.extent) })
    }

    /// An extent that is here. It is this user's from now on.
    pub(super) fn find(&mut self, id: ExtentId, user: UserId, now: Instant) -> Option<Hit> {
        let held = self.held.get_mut(&id)?;
        // Who does not say that it has passed an extent begins to read it anew after this time.
        let goes_on = |read: Instant| now.duration_since(read) <= limits::dataset::AHEAD_KEPT;
        let begins = (!held.read.is_some_and(goes_on)).then_some(held.source_bytes);
        held.source_bytes = 0;
        held.read = Some(now);
        // Who read it before may read on in it.
        held.next_user = held.next_user.take().filter(|(next, _)| *next != user);
        held.user = user;
        let extent = Arc::clone(&held.extent);
        match &mut held.place {
            Place::Resident => self.residents.is_of(id, user),
            Place::Pool { tick } => {
                for order in [&mut self.current, &mut self.ahead, &mut self.passed] {
                    order.remove(tick);
                }
                self.tick += 1;
                *tick = self.tick;
                self.current.insert(self.tick, (id, now));
            }
        }
        Some(Hit { extent, begins })
    }

    /// A load that is under way. Somebody waits for it from now on.
    pub(super) fn join(&mut self, id: ExtentId, user: UserId) -> Option<Outcome> {
        let loading = self.loads.get_mut(&id)?;
        if !loading.is_waited_for {
            (loading.is_waited_for, loading.user) = (true, user);
        }
        Some(loading.outcome.clone())
    }

    /// The same, without waiting as a reader does.
    pub(super) fn loading(&self, id: ExtentId) -> Option<Outcome> {
        self.loads.get(&id).map(|loading| loading.outcome.clone())
    }

    pub(super) fn is_loading(&self, id: ExtentId) -> bool {
        self.loads.contains_key(&id)
    }

    /// What an extent that is not here will take, about.
    pub(super) fn estimate(&self, id: ExtentId) -> usize {
        let content = id.bytes as usize;
        content.saturating_mul(self.share) / 1000 + limits::dataset::EXTENT_COST_BYTES
    }

    /// Whether there is room in the pool, when what was passed and what was forgotten there goes, without what it has of what stays.
    fn has_room(&mut self, bytes: usize, scene: Scene<'_>, changes: &mut Changes) -> bool {
        self.has_room_in(self.own_pool_room(), bytes, scene, changes)
    }

    fn has_room_in(
        &mut self,
        room: usize,
        bytes: usize,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> bool {
        while self.pool_bytes + self.beside_bytes() + bytes > room {
            let Some(id) = self.disposable(scene.now) else { return false };
            self.leave_pool(id, scene, changes);
        }
        true
    }

    /// What takes room from the pool without being in it: what is being sent, and what is on its way to a place that is taken.
    fn beside_bytes(&self) -> usize {
        let free = self.resident_room().saturating_sub(self.residents.bytes());
        let loading = self.free_loading_bytes + self.turns.pieces_bytes;
        let loading = (loading as u64).saturating_sub(free);
        self.lent.outside_bytes() + usize::try_from(loading).unwrap_or(usize::MAX)
    }

    fn disposable(&self, now: Instant) -> Option<ExtentId> {
        if let Some((id, _)) = self.passed.values().find(|(id, _)| !self.lent.is_within(*id)) {
            return Some(*id);
        }
        let is_forgotten = |since: Instant| now.duration_since(since) > limits::dataset::AHEAD_KEPT;
        let oldest = [&self.current, &self.ahead]
            .into_iter()
            .filter_map(|order| order.values().next().filter(|(_, since)| is_forgotten(*since)));
        oldest.min_by_key(|(_, since)| *since).map(|(id, _)| *id)
    }

    /// A load has ended without an extent.
    pub(super) fn abandon(&mut self, id: ExtentId) {
        self.turns.forget(id);
        if let Some(loading) = self.loads.remove(&id) {
            self.pool_bytes -= loading.pool_bytes;
            self.free_loading_bytes -= loading.free_bytes;
        }
    }

    /// A load has brought its extent. Whose read it is, if somebody waits for it.
    pub(super) fn settle(
        &mut self,
        id: ExtentId,
        extent: Arc<Extent>,
        source_bytes: u32,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> Option<UserId> {
        let loading = self.loads.remove(&id)?;
        self.pool_bytes -= loading.pool_bytes;
        self.free_loading_bytes -= loading.free_bytes;
        let bytes = cost(&extent);
        let own_bytes = bytes - limits::dataset::EXTENT_COST_BYTES;
        if let Some(share) = own_bytes.saturating_mul(1000).checked_div(id.bytes as usize) {
            let share = share.clamp(1000, 4000);
            self.share = share.max(self.share - self.share.saturating_sub(share) / 16);
        }
        let waiting = loading.is_waited_for.then_some(loading.user);
        let held = Held {
            extent,
            bytes,
            user: loading.user,
            place: Place::Resident,
            read: waiting.is_some().then_some(scene.now),
            source_bytes: if waiting.is_some() { 0 } else { source_bytes },
            next_user: None,
        };
        let stays = loading.free_bytes > 0 && bytes as u64 <= self.free_bytes();
        let fits = if stays {
            false
        } else if waiting.is_some() {
            self.make_room(bytes, None, scene, changes)
        } else {
            self.has_room_in(self.pool_room(), bytes, scene, changes)
        };
        if fits {
            self.enter_pool(id, held, scene.now);
        } else {
            self.offer(id, held, scene, changes);
            if waiting.is_some() {
                self.note_gone(id, scene.now);
            }
        }
        waiting
    }

    /// Makes room in the pool. Whether there is enough. With the time, of what is read at that nothing goes.
    fn make_room(
        &mut self,
        bytes: usize,
        gently: Option<Instant>,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> bool {
        if !self.may_have_room(bytes, gently) {
            return false;
        }
        while !self.has_room_in(self.pool_room(), bytes, scene, changes) {
            let Some(id) = self.least_needed(gently) else { return false };
            self.leave_pool_early(id, scene, changes);
        }
        true
    }

    /// Whether there is room when all goes that may go: else nothing has to. What goes may have taken a place among those that stay, so that there
    /// is less room in the end.
    fn may_have_room(&self, bytes: usize, gently: Option<Instant>) -> bool {
        let room = self.pool_room();
        if self.pool_bytes + self.beside_bytes() + bytes <= room {
            return true;
        }
        let current = self.current.values().take_while(|(_, since)| is_idle(*since, gently));
        let may_go =
            current.chain(self.passed.values()).filter(|(id, _)| !self.lent.is_within(*id));
        let may_go = may_go.chain(self.ahead.values());
        let may_go = may_go.filter_map(|(id, _)| self.held.get(id)).map(|held| held.bytes);
        let stays = self.pool_bytes.saturating_sub(may_go.sum()) + self.beside_bytes();
        bytes <= room && stays + bytes <= room
    }

    /// What goes where all is needed: what will be read last, then what was not asked for for longest among what is being read. With the time,
    /// what was asked for just now is not: its reader would have it fetched again for its next few records, and take that of another.
    fn least_needed(&self, now: Option<Instant>) -> Option<ExtentId> {
        // Of what is being sent nothing is won.
        let current = self.current.values().take_while(|(_, since)| is_idle(*since, now));
        let mut current = current.filter(|(id, _)| !self.lent.is_within(*id));
        let last = self.ahead.values().next_back().or_else(|| current.next());
        last.map(|(id, _)| *id)
    }

    fn enter_pool(&mut self, id: ExtentId, mut held: Held, now: Instant) {
        self.tick += 1;
        held.place = Place::Pool { tick: self.tick };
        self.pool_bytes += held.bytes;
        let order = if held.read.is_some() { &mut self.current } else { &mut self.ahead };
        order.insert(self.tick, (id, now));
        self.held.insert(id, held);
    }

    /// The same for what somebody may be reading.
    fn leave_pool_early(&mut self, id: ExtentId, scene: Scene<'_>, changes: &mut Changes) {
        let is_read = self.held.get(&id).is_some_and(|held| held.read.is_some());
        self.leave_pool(id, scene, changes);
        if is_read {
            self.note_gone(id, scene.now);
        }
    }

    /// Takes it out of the pool. It stays if it ranks.
    fn leave_pool(&mut self, id: ExtentId, scene: Scene<'_>, changes: &mut Changes) {
        let Some(held) = self.held.remove(&id) else { return };
        if let Place::Pool { tick } = held.place {
            for order in [&mut self.current, &mut self.ahead, &mut self.passed] {
                order.remove(&tick);
            }
            self.pool_bytes -= held.bytes;
        }
        self.offer(id, held, scene, changes);
    }

    /// Those that go if this one stays, none if there is room; `None` if it does not rank before them.
    fn pushed_out(&self, id: ExtentId, held: &Held, scene: Scene<'_>) -> Option<Vec<ExtentId>> {
        let room = self.resident_room();
        let over = (self.residents.bytes() + held.bytes as u64).saturating_sub(room);
        let standing_of = |user| scene.users.standing(user, scene.now);
        self.residents.last(standing_of(held.user).place(Rank::of(id)), over, standing_of)
    }

    /// It stays if it ranks; others go for it.
    fn offer(&mut self, id: ExtentId, held: Held, scene: Scene<'_>, changes: &mut Changes) {
        match self.pushed_out(id, &held, scene) {
            Some(last) => {
                last.into_iter().for_each(|id| self.evict(id, changes));
                self.residents.insert(id, held.user, held.bytes as u64);
                self.held.insert(id, Held { place: Place::Resident, ..held });
                changes.stay.push(id);
            }
            None => {
                self.lent.is_outside(id);
                let (user, extent) = (held.user, held.extent);
                changes.displaced.push(Displaced { id, user, extent });
            }
        }
    }

    fn evict(&mut self, id: ExtentId, changes: &mut Changes) {
        self.residents.remove(id);
        if let Some(Held { user, extent, .. }) = self.held.remove(&id) {
            self.lent.is_outside(id);
            changes.displaced.push(Displaced { id, user, extent });
        }
    }

    /// Takes an extent that a reader will want. Where it `has_place`, that of the piece that it was cut from, it takes no more memory than before.
    pub(super) fn put(
        &mut self,
        id: ExtentId,
        user: UserId,
        (extent, has_place): (Arc<Extent>, bool),
        scene: Scene<'_>,
        changes: &mut Changes,
    ) {
        if self.contains(id) || self.is_loading(id) {
            return;
        }
        let bytes = cost(&extent);
        let place = Place::Resident;
        let (read, next_user, source_bytes) = (None, None, id.bytes);
        let held = Held { extent, bytes, user, place, read, source_bytes, next_user };
        // It pushes out nothing as long as there is another place for it: what was downloaded before has not been read either.
        let is_free = bytes as u64 <= self.free_bytes();
        if !is_free && (self.has_room(bytes, scene, changes) || has_place) {
            self.enter_pool(id, held, scene.now);
        } else {
            self.offer(id, held, scene, changes);
        }
    }

    /// Lends an extent: a loan that there is, or a new one, if there is room for it. Half of the pool's room is left to that.
    pub(super) fn lend(
        &mut self,
        id: ExtentId,
        bytes: usize,
        new: impl FnOnce() -> Arc<Loan>,
    ) -> Option<Arc<Loan>> {
        if let Some(loan) = self.lent.again(id) {
            return Some(loan);
        }
        let most = self.own_pool_room() / 2;
        self.lent.has_room(id, bytes, most).then(|| {
            let loan = new();
            self.lent.lend(id, &loan, bytes, !self.contains(id));
            loan
        })
    }

    /// Takes more memory, or less from now on; what is on its way stays.
    pub(super) fn set_budget(&mut self, bytes: usize, scene: Scene<'_>, changes: &mut Changes) {
        self.budget_bytes = bytes;
        self.clamp_strain();
        self.fit_residents(scene, changes);
        self.fit_pool(scene, changes);
    }

    /// What is in the pool beyond its room goes.
    fn fit_pool(&mut self, scene: Scene<'_>, changes: &mut Changes) {
        while !self.has_room_in(self.pool_room(), 0, scene, changes) {
            let Some(id) = self.least_needed(None) else { break };
            self.leave_pool_early(id, scene, changes);
        }
    }

    /// What stays beyond its room goes.
    fn fit_residents(&mut self, scene: Scene<'_>, changes: &mut Changes) {
        let over = self.residents.bytes().saturating_sub(self.resident_room());
        let standing_of = |user| scene.users.standing(user, scene.now);
        let first = (super::users::Class::Pinned, Rank(0));
        let last = self.residents.last(first, over, standing_of);
        last.unwrap_or_default().into_iter().for_each(|id| self.evict(id, changes));
    }
}
