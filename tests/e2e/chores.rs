//! `kill -9` of the cloud while it archives, compacts, deletes and changes modes. `scripts/soak 200 --chores` runs more of the same.

use anyhow::ensure;
use robustmq_tests::load::chores::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_that_is_killed_loses_nothing() -> anyhow::Result<()> {
    let outcome = run(&Plan { rounds: 16, seed: 3 }, |line| eprintln!("{line}")).await?;
    ensure!(outcome.faults.is_empty(), "{:#?}", outcome.faults);
    // It was at work when it was killed.
    ensure!(outcome.objects > 0 && outcome.mode_changes > 0, "{outcome:?}");
    ensure!(outcome.kept_segments > 0, "{outcome:?}");
    Ok(())
}
