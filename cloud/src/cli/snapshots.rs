//! `robustmq-cloud group snapshot`, through the admin listener of the running broker: Kafka has no call for it.

use clap::Subcommand;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;

use super::edge::{Admin, admin_client, base, failed, good};
use super::table::print_listing;
use super::units::{counted, time};
use super::{CommandError, print};

#[derive(Subcommand)]
pub(super) enum SnapshotCommand {
    /// Take a snapshot of what a group has acknowledged
    #[command(
        after_help = "Example:\n  robustmq-cloud group snapshot take '$shared/training' step-4000"
    )]
    Take {
        /// The group's id
        group: String,
        /// The snapshot's name
        name: String,
        /// Replace one of the same name
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// List a group's snapshots
    #[command(
        after_help = "Example:\n  robustmq-cloud group snapshot list '$shared/training' --json"
    )]
    List {
        /// The group's id
        group: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Have a group go back to a snapshot: what was acknowledged since is given out again
    ///
    /// Its members lose what they hold and join again by themselves.
    #[command(
        after_help = "Example:\n  robustmq-cloud group snapshot rewind '$shared/training' step-4000"
    )]
    Rewind {
        /// The group's id
        group: String,
        /// The snapshot's name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Delete a snapshot
    #[command(
        after_help = "Example:\n  robustmq-cloud group snapshot delete '$shared/training' step-4000"
    )]
    Delete {
        /// The group's id
        group: String,
        /// The snapshot's name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
}

pub(super) async fn run(command: SnapshotCommand) -> Result<(), CommandError> {
    let client = admin_client()?;
    match command {
        SnapshotCommand::Take { group, name, replace, admin } => {
            let mut url = url(&admin, &["groups", &group, "snapshots", &name])?;
            if replace {
                url.set_query(Some("replace=true"));
            }
            let asked = client.request(Method::PUT, url).send().await;
            if asked.as_ref().is_ok_and(|answer| answer.status() == StatusCode::CONFLICT) {
                return Err(CommandError::Failed(format!(
                    "{group} has a snapshot {name} already: take it under another name, or replace that one with --replace"
                )));
            }
            let taken = json(good(asked).await?).await?;
            let partitions = counted(number(&taken, "partitions"), "partition");
            print(&format!("took {name} of {group}: {partitions}\n"));
        }
        SnapshotCommand::List { group, json: as_json, admin } => {
            let url = url(&admin, &["groups", &group, "snapshots"])?;
            let listed = json(call(&client, Method::GET, url).await?).await?;
            let listed = listed.as_array().cloned().unwrap_or_default();
            let heading = ["SNAPSHOT", "TAKEN", "PARTITIONS"];
            print_listing(as_json, &listed, &heading, |taken| {
                let name = taken.get("name").and_then(Value::as_str).unwrap_or_default();
                let partitions = number(taken, "partitions").to_string();
                vec![name.to_owned(), time(number(taken, "taken_ms")), partitions]
            })?;
        }
        SnapshotCommand::Rewind { group, name, admin } => {
            let url = url(&admin, &["groups", &group, "snapshots", &name, "rewind"])?;
            let done = json(call(&client, Method::POST, url).await?).await?;
            let partitions = counted(number(&done, "partitions"), "partition");
            print(&format!("{group} is at {name} again on {partitions}\n"));
            let anew = number(&done, "begun_anew");
            if anew > 0 {
                print(&format!("it begins anew on {anew} that it had not read then\n"));
            }
            let deleted = number(&done, "deleted");
            if deleted > 0 {
                let deleted = counted(deleted, "partition");
                print(&format!("deleted with their topics since: {deleted} of the snapshot\n"));
            }
            let gone = number(&done, "gone");
            if gone > 0 {
                let gone = counted(gone, "record");
                print(&format!("deleted since, and cannot come again: {gone}\n"));
            }
        }
        SnapshotCommand::Delete { group, name, admin } => {
            let url = url(&admin, &["groups", &group, "snapshots", &name])?;
            call(&client, Method::DELETE, url).await?;
            print(&format!("deleted {name} of {group}\n"));
        }
    }
    Ok(())
}

/// What a group that shares records does.
pub(super) async fn sharing(admin: &Admin, group: &str) -> Result<Option<Value>, CommandError> {
    let url = url(admin, &["groups", group])?;
    let mut shown = json(call(&admin_client()?, Method::GET, url).await?).await?;
    Ok(shown.get_mut("sharing").map(Value::take).filter(|sharing| !sharing.is_null()))
}

pub(super) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// The URL of something that the admin listener tells of, whatever characters its segments have.
pub(super) fn url(admin: &Admin, segments: &[&str]) -> Result<Url, CommandError> {
    let base = base(admin)?;
    let wrong = || CommandError::Usage(format!("--admin {base:?} is no URL"));
    let mut url = Url::parse(&base).map_err(|_| wrong())?;
    url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().push("v1").extend(segments);
    Ok(url)
}

pub(super) async fn call(
    client: &Client,
    method: Method,
    url: Url,
) -> Result<Response, CommandError> {
    good(client.request(method, url).send().await).await
}

pub(super) async fn json(answer: Response) -> Result<Value, CommandError> {
    answer.json().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::{Admin, url};

    #[test]
    fn a_groups_slashes_stay_in_its_own_segment() {
        let admin = Admin { admin: "127.0.0.1:8090".to_owned() };
        let url = url(&admin, &["groups", "$shared/a b", "snapshots", "one"]).map(String::from);
        let expected = "http://127.0.0.1:8090/v1/groups/$shared%2Fa%20b/snapshots/one";
        assert_eq!(url.ok().as_deref(), Some(expected));
    }
}
