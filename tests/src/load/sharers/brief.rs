//! Members that live for less than a second. A stock client takes longer than that to join and to close; these speak the protocol by hand,
//! so that many come and go between two deaths of the broker.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    FetchRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::account::{Holder, Shared, lock};
use super::history::{Event, What, Who};
use super::{GROUP, PARTITIONS, TOPIC};
use crate::clients::wire::{Wire, text};

/// How many live at a time.
const MEMBERS: u64 = 6;
/// How many say nothing any more and wait to be given up, for each that lives.
const SILENT: usize = 4;
/// Longer than a member lives on a machine that is busy.
pub(super) const SESSION: Duration = Duration::from_secs(20);
/// Of those that will be silent. The broker has to be told to allow it.
pub const SHORT_SESSION: Duration = Duration::from_secs(1);
/// Between two lives, at most.
const PAUSE_MS: u64 = 300;
const FETCH_WAIT_MS: i32 = 100;
const FETCH_BYTES: i32 = 1 << 20;

/// How a member goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Acknowledges what it has, and leaves.
    Done,
    /// Leaves with what it has.
    Leaves,
    /// Its connection ends.
    Vanishes,
    /// Its connection stays, and nothing comes from it.
    FallsSilent,
}

impl End {
    fn of(life: u64) -> Self {
        match life % 4 {
            0 => Self::Done,
            1 => Self::Leaves,
            2 => Self::Vanishes,
            _ => Self::FallsSilent,
        }
    }
}

/// A life that ended early. If that is a fault, it is in the account.
#[derive(Debug)]
struct CutShort;

impl std::fmt::Display for CutShort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a life that ended early")
    }
}

impl std::error::Error for CutShort {}

/// What a member has been given of a partition, and where it is.
struct Part {
    index: i32,
    position: i64,
    /// Positions and numbers of the records that it has not acknowledged.
    open: Vec<(i64, u64)>,
}

/// A member, on a connection of its own.
pub(super) struct Member {
    wire: Wire,
    number: u64,
    id: StrBytes,
    generation: i32,
    parts: Vec<Part>,
    account: Shared,
    /// It has what it has to itself. `None` if its session may run out while it works.
    holder: Option<Holder>,
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

/// What OffsetFetch says: a member's cursors, or how the group stands.
pub(super) async fn offsets(wire: &mut Wire) -> anyhow::Result<Vec<(i32, i64, i16)>> {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic())
        .with_partition_indexes((0..PARTITIONS).collect());
    let asked =
        OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
    let answer = wire.call(8, &OffsetFetchRequest::default().with_groups(vec![asked])).await?;
    let group = answer.groups.first().context("no group")?;
    // Then nothing is said of partitions.
    if group.error_code != 0 {
        return Ok((0..PARTITIONS).map(|index| (index, -1, group.error_code)).collect());
    }
    let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(partitions.map(|p| (p.partition_index, p.committed_offset, p.error_code)).collect())
}

/// Records that the group has not acknowledged yet, as an observer learns it; `None` while it may be a member for all that the broker
/// knows.
///
/// # Errors
/// When the broker does not say.
pub async fn lag(kafka: &str) -> anyhow::Result<Option<i64>> {
    let mut wire = Wire::connect(kafka, "observer").await?;
    let partition =
        |index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1);
    let named = ListOffsetsTopic::default()
        .with_name(topic())
        .with_partitions((0..PARTITIONS).map(partition).collect());
    let ends = wire.call(7, &ListOffsetsRequest::default().with_topics(vec![named])).await?;
    let ends: i64 =
        ends.topics.iter().flat_map(|topic| &topic.partitions).map(|end| end.offset).sum();
    let starts = offsets(&mut wire).await?;
    let unclear = ResponseError::CoordinatorLoadInProgress.code();
    if starts.iter().any(|(_, _, code)| *code == unclear) {
        return Ok(None);
    }
    if let Some((index, _, code)) = starts.iter().find(|(_, _, code)| *code != 0) {
        bail!("OffsetFetch of partition {index} is refused with {code}");
    }
    Ok(Some(ends - starts.iter().map(|(_, start, _)| (*start).max(0)).sum::<i64>()))
}

impl Member {
    async fn join(kafka: &str, account: &Shared, number: u64, end: End) -> anyhow::Result<Self> {
        let life = lock(account).life;
        let (holder, session) = match end {
            End::FallsSilent => (None, SHORT_SESSION),
            _ => (Some(Holder { member: number, life }), SESSION),
        };
        let mut member = Self::begin(kafka, account, number, session, holder).await?;
        for (index, position, code) in offsets(&mut member.wire).await? {
            member.check("OffsetFetch", code)?;
            member.parts.push(Part { index, position, open: Vec::new() });
        }
        let mut account = lock(&member.account);
        account.counts.brief += 1;
        if account.life != life {
            // It does not know which of two brokers it has joined.
            bail!(CutShort);
        }
        drop(account);
        Ok(member)
    }

    /// Joins, and is assigned its partitions.
    pub(super) async fn begin(
        kafka: &str,
        account: &Shared,
        number: u64,
        session: Duration,
        holder: Option<Holder>,
    ) -> anyhow::Result<Self> {
        let wire = Wire::connect(kafka, "brief").await?;
        let (id, parts, account) = (StrBytes::default(), Vec::new(), account.clone());
        let mut member = Self { wire, number, id, generation: -1, parts, account, holder };
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"all"));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(i32::try_from(session.as_millis())?)
            .with_rebalance_timeout_ms(i32::try_from(SESSION.as_millis())?)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = member.wire.call(9, &request).await?;
        member.check("JoinGroup", joined.error_code)?;
        (member.id, member.generation) = (joined.member_id, joined.generation_id);
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(member.generation)
            .with_member_id(member.id.clone());
        let synced = member.wire.call(5, &request).await?;
        member.check("SyncGroup", synced.error_code)?;
        Ok(member)
    }

    /// Nothing that a member asks for is refused while its session lasts.
    fn check(&self, what: &str, code: i16) -> anyhow::Result<()> {
        if code == 0 {
            return Ok(());
        }
        if self.holder.is_some() {
            lock(&self.account).fault(format!("{what} of a member is refused with {code}"));
        }
        bail!(CutShort)
    }

    async fn fetch(&mut self) -> anyhow::Result<()> {
        let partition = |part: &Part| {
            FetchPartition::default()
                .with_partition(part.index)
                .with_fetch_offset(part.position)
                .with_partition_max_bytes(FETCH_BYTES)
        };
        let partitions = self.parts.iter().map(partition).collect();
        let topic = FetchTopic::default().with_topic(topic()).with_partitions(partitions);
        let request = FetchRequest::default()
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_topics(vec![topic]);
        let asked = Instant::now();
        let answer = self.wire.call(12, &request).await?;
        self.check("Fetch", answer.error_code)?;
        for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            self.check("Fetch", data.error_code)?;
            let part = self.parts.iter_mut().find(|part| part.index == data.partition_index);
            let part = part.context("a partition that nobody asked for")?;
            let batches = RecordBatchDecoder::decode_all(&mut data.records.unwrap_or_default())?;
            for record in batches.into_iter().flat_map(|batch| batch.records) {
                // Clients drop what is before their position.
                if record.offset < part.position {
                    continue;
                }
                let number = std::str::from_utf8(&record.value.unwrap_or_default())?.parse()?;
                part.position = record.offset + 1;
                part.open.push((record.offset, number));
                let who = Who::Brief(self.number);
                let event = Event { who, what: What::Given, offset: record.offset, asked };
                let mut account = lock(&self.account);
                match self.holder {
                    Some(holder) => account.hold(number, event, holder),
                    None => account.give(number, event),
                }
            }
        }
        Ok(())
    }

    /// Acknowledges the first records that it has of a partition. Returns the answer's error code.
    async fn commit(&mut self, part: usize, count: usize) -> anyhow::Result<i16> {
        let part = self.parts.get_mut(part).context("no such partition")?;
        let taken: Vec<(i64, u64)> = part.open.drain(..count).collect();
        let Some((last, _)) = taken.last() else { return Ok(0) };
        let numbers = taken.iter().map(|(_, number)| *number);
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(part.index)
            .with_committed_offset(last + 1);
        let topic =
            OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        let (who, asked) = (Who::Brief(self.number), Instant::now());
        let event = |what| Event { who, what, offset: last + 1, asked };
        let answer = self.wire.call(8, &request).await;
        let mut account = lock(&self.account);
        let lost = event(What::Unanswered);
        let answer = answer.inspect_err(|_| account.commit(numbers.clone(), lost, None))?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let code = partitions.map(|p| p.error_code).next().context("no partition")?;
        let what = match code {
            0 => What::Committed,
            code => What::NotCommitted(code.into()),
        };
        account.commit(numbers, event(what), self.holder);
        Ok(code)
    }

    /// Acknowledges all that it has; stops where it is refused.
    async fn commit_all(&mut self) -> anyhow::Result<i16> {
        for part in 0..self.parts.len() {
            let open = self.parts.get(part).map_or(0, |part| part.open.len());
            let code = self.commit(part, open).await?;
            if code != 0 {
                return Ok(code);
            }
        }
        Ok(0)
    }

    /// It speaks on another connection from now on.
    pub(super) fn go_on(&mut self, wire: Wire) -> &mut Wire {
        self.wire = wire;
        &mut self.wire
    }

    pub(super) async fn heartbeat(&mut self) -> anyhow::Result<i16> {
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        Ok(self.wire.call(4, &request).await?.error_code)
    }

    /// Fetches, acknowledges a part of what it has, and lives on.
    async fn work(&mut self, rng: &mut StdRng) -> anyhow::Result<()> {
        self.fetch().await?;
        if rng.random_bool(0.3) {
            let code = self.heartbeat().await?;
            self.check("Heartbeat", code)?;
        }
        for part in 0..self.parts.len() {
            let open = self.parts.get(part).map_or(0, |part| part.open.len());
            let code = self.commit(part, rng.random_range(0..=open)).await?;
            self.check("OffsetCommit", code)?;
        }
        Ok(())
    }

    /// From now on others may be given what it has.
    fn let_go(&self) {
        let Some(holder) = self.holder else { return };
        let mut account = lock(&self.account);
        for (_, number) in self.parts.iter().flat_map(|part| &part.open) {
            account.release(*number, holder);
        }
    }

    async fn leave(mut self) -> anyhow::Result<()> {
        self.let_go();
        let identity = MemberIdentity::default().with_member_id(self.id.clone());
        let request =
            LeaveGroupRequest::default().with_group_id(group()).with_members(vec![identity]);
        let answer = self.wire.call(5, &request).await?;
        self.check("LeaveGroup", answer.error_code)?;
        let code = answer.members.first().context("no member")?.error_code;
        self.check("LeaveGroup", code)?;
        lock(&self.account).counts.left += 1;
        Ok(())
    }

    /// Says nothing for longer than its session lasts, and acknowledges then what it has. That counts if it is a member still.
    async fn fall_silent(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(SHORT_SESSION * 3 / 2) => {}
        }
        let mut code = self.commit_all().await?;
        if code == 0 {
            code = self.heartbeat().await?;
        }
        let mut account = lock(&self.account);
        if code == ResponseError::UnknownMemberId.code() {
            account.counts.expired += 1;
        } else if code != 0 {
            account.fault(format!("a member whose session may be over is told {code}"));
        }
        Ok(())
    }
}

/// Connections end with the broker; whatever else goes wrong does not pass.
pub(super) fn note(account: &Shared, error: &anyhow::Error) {
    if !error.is::<std::io::Error>() && !error.is::<CutShort>() {
        lock(account).fault(format!("a member fails: {error:#}"));
    }
}

/// One life. Returns the member if it lives on without a word.
async fn live(
    kafka: &str,
    account: &Shared,
    number: u64,
    end: End,
    rng: &mut StdRng,
) -> anyhow::Result<Option<Member>> {
    let mut member = Member::join(kafka, account, number, end).await?;
    for _ in 0..rng.random_range(0..6) {
        member.work(rng).await?;
    }
    // It always has something to lose, if there is anything.
    member.fetch().await?;
    match end {
        End::Done => {
            let code = member.commit_all().await?;
            member.check("OffsetCommit", code)?;
            member.leave().await?;
        }
        End::Leaves => member.leave().await?,
        End::Vanishes => {
            member.let_go();
            lock(account).counts.vanished += 1;
        }
        End::FallsSilent => return Ok(Some(member)),
    }
    Ok(None)
}

/// Lives, one after the other.
async fn lives(kafka: String, account: Shared, stop: CancellationToken, first: u64, seed: u64) {
    let mut silent = JoinSet::new();
    let mut rng = StdRng::seed_from_u64(seed ^ (first + 1) << 40);
    for life in 0.. {
        let end = match End::of(life) {
            End::FallsSilent if silent.len() >= SILENT => End::Vanishes,
            end => end,
        };
        let number = life * MEMBERS + first;
        match live(&kafka, &account, number, end, &mut rng).await {
            Ok(Some(member)) => {
                let (account, stop) = (account.clone(), stop.clone());
                silent.spawn(async move {
                    if let Err(error) = member.fall_silent(stop).await {
                        note(&account, &error);
                    }
                });
            }
            Ok(None) => {}
            Err(error) => note(&account, &error),
        }
        while silent.try_join_next().is_some() {}
        let pause = Duration::from_millis(rng.random_range(0..PAUSE_MS));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    silent.join_all().await;
}

/// Brief members, each of which is followed by another one, until `stop`.
pub fn start(kafka: &str, account: &Shared, seed: u64, stop: &CancellationToken) -> JoinSet<()> {
    let mut crew = JoinSet::new();
    for first in 0..MEMBERS {
        crew.spawn(lives(kafka.to_owned(), account.clone(), stop.clone(), first, seed));
    }
    crew
}
