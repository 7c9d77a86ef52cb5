//! The first SIGTERM or SIGINT drains, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::StartError;

/// What a shell reports for a process that SIGINT or SIGTERM ended: 128 plus the signal's number.
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

/// A token that the first SIGTERM or SIGINT cancels. A second one ends the process without waiting for the drain.
/// Has to be called within a tokio runtime.
///
/// # Errors
/// [`StartError::Failed`] when the system does not let the process handle signals.
pub fn shutdown_on_signals() -> Result<CancellationToken, StartError> {
    let handle = |kind, name: &str| {
        signal(kind).map_err(|error| StartError::Failed(format!("cannot handle {name}: {error}")))
    };
    let mut terminate = handle(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = handle(SignalKind::interrupt(), "SIGINT")?;
    let token = CancellationToken::new();
    let drain = token.clone();
    tokio::spawn(async move {
        let (signal, _) = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal, "shutting down; a second signal ends at once");
        drain.cancel();
        let (signal, code) = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal, "second signal: ending without a drain");
        std::process::exit(code);
    });
    Ok(token)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", EXIT_TERMINATED),
        _ = interrupt.recv() => ("SIGINT", EXIT_INTERRUPTED),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::{EXIT_INTERRUPTED, EXIT_TERMINATED, shutdown_on_signals};

    /// Set in the process that the test starts and then sends signals to, since the second one ends it.
    const IS_CHILD: &str = "TEST_OF_SHUTDOWN_IS_CHILD";

    async fn child() {
        let token = shutdown_on_signals().expect("signals can be handled");
        println!("\nup");
        token.cancelled().await;
        println!("\ndraining");
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends_at_once() {
        if std::env::var_os(IS_CHILD).is_some() {
            child().await;
        }
        let own_name = "net::shutdown::tests::the_first_signal_drains_and_the_second_ends_at_once";
        for (signal, code) in [("-TERM", EXIT_TERMINATED), ("-INT", EXIT_INTERRUPTED)] {
            let own_binary = std::env::current_exe().expect("a running test has a binary");
            let mut child = Command::new(own_binary)
                .args(["--exact", own_name, "--nocapture"])
                .env(IS_CHILD, "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the test binary starts");
            let pid = child.id().to_string();
            let send = || {
                let sent = Command::new("kill").args([signal, &pid]).status().expect("kill exists");
                assert!(sent.success());
            };
            let out = BufReader::new(child.stdout.take().expect("standard output is piped"));
            let mut lines = out.lines().map_while(Result::ok);
            assert!(lines.any(|line| line == "up"));
            send();
            assert!(lines.any(|line| line == "draining"));
            send();
            let status = child.wait().expect("the child ends");
            assert_eq!(status.code(), Some(code));
        }
    }
}
