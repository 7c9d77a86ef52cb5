//! Members that the broker dies under when they have joined and do not know yet where they begin. Stock clients ask for that again on their next
//! connection, before they hear that they are members no more. They are told no offset of the log: they would read on from there beside the
//! group.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio_util::sync::CancellationToken;

use super::account::{Shared, lock};
use super::brief::{Member, SESSION, note, offsets};
use super::history::is_on_cursor;
use crate::clients::wire::Wire;

const POLL: Duration = Duration::from_millis(10);
/// How often a member asks before it sends a heartbeat.
const TRIES: u32 = 3;

/// Whether the broker has been killed since its `life`; `None` if it never will be.
async fn is_killed(account: &Shared, life: u32, stop: &CancellationToken) -> Option<()> {
    while lock(account).life == life {
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(POLL) => {}
        }
    }
    Some(())
}

/// Joins, and asks again after the next death of the broker.
async fn live(kafka: &str, account: &Shared, stop: &CancellationToken) -> anyhow::Result<()> {
    let life = lock(account).life;
    let mut member = Member::begin(kafka, account, 0, SESSION, None).await?;
    if lock(account).life != life {
        // It does not know which of two brokers it has joined.
        return Ok(());
    }
    if is_killed(account, life, stop).await.is_none() {
        return Ok(());
    }
    let wire = loop {
        match Wire::connect(kafka, "brief").await {
            Ok(wire) => break wire,
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    let wire = member.go_on(wire);
    for _ in 0..TRIES {
        let told = offsets(wire).await?;
        let beside = told.iter().find(|(_, offset, code)| *code == 0 && !is_on_cursor(*offset));
        if let Some((index, offset, _)) = beside {
            lock(account).fault(format!(
                "a member of before is told to begin at the log's offset {offset} of partition {index}"
            ));
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let code = member.heartbeat().await?;
    let mut account = lock(account);
    account.counts.late += 1;
    if code != ResponseError::UnknownMemberId.code() {
        account.fault(format!("a member of before is told {code} by its heartbeat"));
    }
    Ok(())
}

/// Such members, one after the other, until `stop`.
pub async fn run(kafka: String, account: Shared, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = live(&kafka, &account, &stop).await {
            note(&account, &error);
        }
        tokio::time::sleep(POLL).await;
    }
}
