//! `kill -9` of the cloud under a shared group. `scripts/soak 200 --sharers` runs more of the same.

use anyhow::ensure;
use robustmq_tests::load::sharers::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_group_whose_broker_is_killed_loses_nothing() -> anyhow::Result<()> {
    let plan = Plan { rounds: 8, joins: 20, seed: 5 };
    let outcome = run(&plan, |line| eprintln!("{line}")).await?;
    ensure!(outcome.faults.is_empty(), "{:#?}", outcome.faults);
    // It was at work when it was killed, and members came and went in every way.
    let counts = outcome.counts;
    ensure!(outcome.committed > 0 && outcome.again > 0, "{outcome:?}");
    ensure!(counts.stock > 0 && counts.brief >= 160 && counts.expired > 0, "{outcome:?}");
    ensure!(counts.late > 0, "{outcome:?}");
    Ok(())
}
