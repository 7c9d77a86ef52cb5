//! `kill -9` of edge, cloud and both, in turn, under load. `scripts/soak 200` runs more of the same.

use std::time::Duration;

use anyhow::ensure;
use robustmq_tests::load::kills::{Plan, run};

#[tokio::test]
async fn no_kill_loses_or_repeats_what_was_acknowledged() -> anyhow::Result<()> {
    let plan = Plan {
        rounds: 18,
        seed: 7,
        devices_of_each_quality: 3,
        interval: Duration::from_millis(8),
    };
    let outcome = run(&plan, |line| eprintln!("{line}")).await?;
    for device in &outcome.account.devices {
        eprintln!("{device}");
    }
    let faults = outcome.faults();
    ensure!(faults.is_empty(), "{faults:#?}");
    // The rounds did interrupt the devices at work.
    ensure!(outcome.edge_kills == 12 && outcome.cloud_kills == 12);
    ensure!(outcome.reports.iter().all(|report| report.connections > 12), "{:?}", outcome.reports);
    ensure!(
        outcome.reports.iter().map(|report| report.sent_again).sum::<u64>() > 0,
        "{:?}",
        outcome.reports
    );
    Ok(())
}
