//! `robustmq-cloud group`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::cli::complain;
use serde::Serialize;
use serde_json::Value;

use super::client::{Client, check};
use super::configs;
use super::edge::Admin;
use super::snapshots::{self, SnapshotCommand};
use super::table::{print_listing, print_table};
use super::topic::{EARLIEST, LATEST, offsets};
use super::{Bootstrap, CommandError, print, print_json, reset};
use crate::group::share::PROTOCOL_TYPE;
use crate::group::share::config::table;
use crate::group::shared::is_shared;
use crate::group::shared::progress::Progress;

#[derive(Args)]
pub(super) struct Group {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Subcommand)]
enum GroupCommand {
    /// List all groups
    #[command(after_help = "Example:\n  robustmq-cloud group list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Show a group's members, committed offsets and lag: the records that are there and not read
    #[command(
        after_help = "Examples:\n  robustmq-cloud group describe training\n  robustmq-cloud group describe '$shared/training' --admin 127.0.0.1:8090"
    )]
    Describe {
        /// Its id
        name: String,
        /// Also what a group that shares records does, from the admin listener of the broker (HOST:PORT or a URL)
        #[arg(long, value_name = "HOST:PORT")]
        admin: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Move a group's committed offsets; its consumers have to be stopped
    #[command(
        after_help = "Examples:\n  robustmq-cloud group reset training --topic telemetry --to earliest\n  robustmq-cloud group reset '$shared/training' --topic telemetry --to 2026-11-26T20:00:00Z"
    )]
    Reset {
        /// Its id
        name: String,
        /// The topic
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// Where to: earliest, latest, an offset, which is moved into what the topic has, or a time: the first record at or after it
        /// (RFC 3339, a date alone for midnight UTC, or @ and milliseconds since 1970), else the end
        #[arg(long, value_name = "earliest|latest|OFFSET|TIME", allow_negative_numbers = true)]
        to: String,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Change the configuration of a `$shared/` group or a share group; `group describe` shows what is set
    #[command(
        after_help = "Examples:\n  robustmq-cloud group alter '$shared/training' --config robustmq.shared.strategy=adaptive\n  robustmq-cloud group alter '$shared/training' --config robustmq.shared.strategy="
    )]
    Alter {
        /// Its id
        name: String,
        /// A configuration entry; may be given several times. Without a value it goes back to its default
        #[arg(long = "config", value_name = "KEY=VALUE", required = true)]
        configs: Vec<String>,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// List what can be set of a group with this id: allowed values, default, meaning
    #[command(after_help = "Example:\n  robustmq-cloud group configs '$shared/training'")]
    Configs {
        /// Its id: groups whose ids begin with `$shared/` have other entries than share groups
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take snapshots of what a `$shared/` group or a share group has acknowledged, and go back to one
    #[command(
        subcommand,
        after_help = "Example:\n  robustmq-cloud group snapshot take '$shared/training' step-4000"
    )]
    Snapshot(SnapshotCommand),
    /// Delete a group with its committed offsets; its consumers have to be stopped
    #[command(after_help = "Example:\n  robustmq-cloud group delete training")]
    Delete {
        /// Its id
        name: String,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
}

pub(super) async fn run(args: Group) -> Result<(), CommandError> {
    match args.command {
        GroupCommand::List { json, bootstrap } => list(&bootstrap, json).await,
        GroupCommand::Describe { name, admin, json, bootstrap } => {
            describe(&bootstrap, &name, admin, json).await
        }
        GroupCommand::Reset { name, topic, to, bootstrap } => {
            reset::run(&bootstrap, &name, &topic, &to).await
        }
        GroupCommand::Alter { name, configs, bootstrap } => {
            let entries = configs::pairs(&configs)?;
            check_altered(&name, &entries)?;
            let mut client = bootstrap.connect().await?;
            configs::alter(&mut client, configs::GROUP, &name, &entries, false).await?;
            print(&format!("altered {name}\n"));
            Ok(())
        }
        GroupCommand::Configs { name, json } => configs::list(table(&name).0, "", json),
        GroupCommand::Snapshot(command) => snapshots::run(command).await,
        GroupCommand::Delete { name, bootstrap } => delete(&bootstrap, &name).await,
    }
}

/// A shell makes `/training` of `$shared/training` that is not quoted, and another group would be configured than was meant.
fn check_altered(name: &str, entries: &[(String, String)]) -> Result<(), CommandError> {
    if let Some(rest) = name.strip_prefix('/') {
        return Err(CommandError::Usage(format!(
            "{name}: a shell has made this of $shared/{rest}; quote it: '$shared/{rest}'"
        )));
    }
    let is_misplaced = |key: &str| key.starts_with("robustmq.shared.") && !table(name).has(key);
    match entries.iter().find(|(key, _)| !is_shared(name) && is_misplaced(key)) {
        Some((key, _)) => Err(CommandError::Usage(format!(
            "{key} is for groups whose ids begin with $shared/, as in '$shared/{name}'"
        ))),
        None => Ok(()),
    }
}

pub(super) fn group_id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

#[derive(Serialize)]
struct ListedGroup {
    group: String,
    state: String,
    protocol_type: String,
}

async fn list(bootstrap: &Bootstrap, json: bool) -> Result<(), CommandError> {
    let mut client = bootstrap.connect().await?;
    let answer = client.call(4, &ListGroupsRequest::default()).await?;
    check("groups", answer.error_code, None)?;
    let listed = answer.groups.iter().map(|group| ListedGroup {
        group: group.group_id.to_string(),
        state: group.group_state.to_string(),
        protocol_type: group.protocol_type.to_string(),
    });
    let listed: Vec<_> = listed.collect();
    print_listing(json, &listed, &["GROUP", "STATE", "TYPE"], |group| {
        vec![group.group.clone(), group.state.clone(), group.protocol_type.clone()]
    })
}

#[derive(Serialize)]
struct Shown {
    group: String,
    state: String,
    protocol: String,
    /// The entries that are not at their defaults.
    config: BTreeMap<String, Option<String>>,
    members: Vec<Member>,
    offsets: Vec<Committed>,
    /// As the admin listener tells it, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    sharing: Option<Value>,
}

#[derive(Serialize)]
struct Member {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
}

#[derive(Serialize)]
pub(super) struct Committed {
    topic: String,
    partition: i32,
    committed: i64,
    start: i64,
    end: i64,
    pub lag: i64,
}

/// What of a partition that has the offsets from `start` to before `end` a group has not read that committed one, and has acknowledged `ahead`
/// of what is behind that. After a crash a topic that keeps its records in memory begins far above what was committed.
fn lag(committed: i64, (start, end): (i64, i64), ahead: i64) -> i64 {
    end.saturating_sub(committed.max(start)).saturating_sub(ahead).max(0)
}

async fn describe(
    bootstrap: &Bootstrap,
    name: &str,
    admin: Option<String>,
    json: bool,
) -> Result<(), CommandError> {
    let mut client = bootstrap.connect().await?;
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(name)]);
    let answer = client.call(6, &request).await?;
    let Some(group) = answer.groups.first() else {
        return Err(CommandError::Failed(format!("{name}: the broker says nothing about it")));
    };
    let config = configs::set(&mut client, configs::GROUP, name).await?;
    // One that is only configured is none yet to the protocol.
    let is_only_configured = group.error_code == ResponseError::GroupIdNotFound.code()
        && config.keys().any(|key| configures_sharing(key));
    if !is_only_configured {
        check_group(name, name, group.error_code)?;
    }
    let shares = shares_records(name, &group.protocol_type);
    let offsets = committed(&mut client, name, shares).await?;
    let mut shown = shown(name, group, config, offsets);
    if is_only_configured {
        "Empty".clone_into(&mut shown.state);
    }
    let is_asked = admin.is_some();
    if let Some(admin) = admin {
        shown.sharing = snapshots::sharing(&Admin { admin }, name).await?;
    }
    if json {
        return Ok(print_json(&shown)?);
    }
    print(format!("group {} {} {}", shown.group, shown.state, shown.protocol).trim_end());
    print("\n");
    configs::print_set(&shown.config);
    print_table(&shown.members, &["MEMBER", "INSTANCE", "CLIENT", "HOST"], |m| {
        let instance = m.instance_id.clone().unwrap_or_default();
        vec![m.member_id.clone(), instance, m.client_id.clone(), m.client_host.clone()]
    });
    print_table(&shown.offsets, &["TOPIC", "PARTITION", "COMMITTED", "START", "END", "LAG"], |c| {
        let numbers = [i64::from(c.partition), c.committed, c.start, c.end, c.lag];
        std::iter::once(c.topic.clone()).chain(numbers.map(|number| number.to_string())).collect()
    });
    match &shown.sharing {
        Some(sharing) => print_sharing(sharing),
        None if !is_asked && is_shared(name) && shown.offsets.iter().any(|of| of.lag > 0) => {
            complain(
                "robustmq-cloud",
                &"note: --admin HOST:PORT adds what is in flight, delivered again and given up, by partition and member",
            )
        }
        None => {}
    }
    Ok(())
}

/// Whether members of a group share records, and so acknowledge what is behind others' records.
fn shares_records(name: &str, protocol_type: &str) -> bool {
    is_shared(name) || protocol_type == PROTOCOL_TYPE
}

/// Whether an entry is of groups that share records, which is set for one group, and not for all by the broker.
fn configures_sharing(key: &str) -> bool {
    key.starts_with("robustmq.shared.") || key.starts_with("share.")
}

/// What a group that shares records does: since its members began, by partition, and what each holds.
fn print_sharing(sharing: &Value) {
    const NUMBERS: [&str; 6] =
        ["partition", "in_flight", "delivered", "redelivered", "acknowledged", "rejected"];
    let rows = |key| sharing.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |row: &Value, key| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |row: &Value, key: &str| row.get(key).map(ToString::to_string).unwrap_or_default();
    let heading =
        ["TOPIC", "PARTITION", "IN FLIGHT", "DELIVERED", "REDELIVERED", "ACKNOWLEDGED", "REJECTED"];
    print_table(&rows("partitions"), &heading, |row| {
        let numbers = NUMBERS.iter().map(|key| number(row, key));
        std::iter::once(text(row, "topic")).chain(numbers).collect()
    });
    print_table(&rows("members"), &["MEMBER", "IN FLIGHT"], |row| {
        vec![text(row, "member_id"), number(row, "in_flight")]
    });
}

fn shown(
    name: &str,
    group: &DescribedGroup,
    config: BTreeMap<String, Option<String>>,
    offsets: Vec<Committed>,
) -> Shown {
    let members = group.members.iter().map(|member| Member {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
    });
    Shown {
        group: name.to_owned(),
        state: group.group_state.to_string(),
        protocol: group.protocol_data.to_string(),
        config,
        members: members.collect(),
        offsets,
        sharing: None,
    }
}

/// What a group has committed; one that `shares` records tells with each offset what it has acknowledged behind it.
pub(super) async fn committed(
    client: &mut Client,
    name: &str,
    shares: bool,
) -> Result<Vec<Committed>, CommandError> {
    let group = OffsetFetchRequestGroup::default().with_group_id(group_id(name)).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let answer = client.call(8, &request).await?;
    let mut all = Vec::new();
    for group in &answer.groups {
        check(name, group.error_code, None)?;
        for topic in &group.topics {
            let indexes: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
            let starts = offsets(client, &topic.name, &indexes, EARLIEST).await?;
            let ends = offsets(client, &topic.name, &indexes, LATEST).await?;
            let logs = starts.into_iter().zip(ends);
            for (partition, ((_, start), (_, end))) in topic.partitions.iter().zip(logs) {
                let committed = partition.committed_offset;
                let note = partition.metadata.as_deref().unwrap_or_default();
                // Of other groups it is their members' own.
                let ahead = if shares { Progress::read_note(note) } else { 0 };
                let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
                all.push(Committed {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    committed,
                    start,
                    end,
                    lag: lag(committed, (start, end), ahead),
                });
            }
        }
    }
    Ok(all)
}

/// As [`check`], where what has to be done about a group is known.
pub(super) fn check_group(name: &str, what: &str, code: i16) -> Result<(), CommandError> {
    match code.err() {
        Some(ResponseError::UnknownMemberId | ResponseError::NonEmptyGroup) => {
            Err(CommandError::Failed(format!(
                "group {name} has members: stop its consumers first (one that crashed counts until its session timeout has passed)"
            )))
        }
        Some(ResponseError::GroupIdNotFound) => {
            let hint = match name.strip_prefix('/') {
                Some(rest) => format!("; if $shared/{rest} is meant, quote it: '$shared/{rest}'"),
                None => String::new(),
            };
            Err(CommandError::Failed(format!("there is no group {name}{hint}")))
        }
        _ => Ok(check(what, code, None)?),
    }
}

async fn delete(bootstrap: &Bootstrap, name: &str) -> Result<(), CommandError> {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(name)]);
    let answer = bootstrap.connect().await?.call(2, &request).await?;
    for result in &answer.results {
        check_group(name, name, result.error_code)?;
    }
    print(&format!("deleted {name}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{lag, shares_records};

    /// What a share group had acknowledged behind other records counted as not read.
    #[test]
    fn groups_of_both_kinds_share_records() {
        for (name, protocol_type, expected) in
            [("$shared/g", "consumer", true), ("g", "share", true), ("g", "consumer", false)]
        {
            assert_eq!(shares_records(name, protocol_type), expected, "{name} {protocol_type}");
        }
    }

    /// After a crash an empty topic had a lag of a million, and one that has less than was committed had one below 0.
    #[test]
    fn lag_is_what_there_is_to_read() {
        for (committed, log, ahead, expected) in [
            (5, (0, 12), 0, 7),
            (5, (0, 12), 3, 4),
            (5000, (1_053_576, 1_053_576), 0, 0),
            (5000, (1_053_576, 1_053_580), 1, 3),
            (100, (0, 0), 0, 0),
            (-1, (2, 12), 0, 10),
        ] {
            assert_eq!(lag(committed, log, ahead), expected, "{committed} of {log:?}");
        }
    }
}
