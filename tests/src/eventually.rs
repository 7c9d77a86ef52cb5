//! Waiting for a condition, bounded.

use std::time::{Duration, Instant};

use anyhow::bail;

const POLL: Duration = Duration::from_millis(20);

/// Asks `check` until it gives a value, for at most `within`.
///
/// # Errors
/// Names `what` and the time when it never did. An error from `check` ends the waiting at once.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut check: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await? {
            return Ok(value);
        }
        if started.elapsed() > within {
            bail!("waited {within:?} in vain for: {what}");
        }
        tokio::time::sleep(POLL).await;
    }
}
