//! What is logged, for tests of what a person is told.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use robustmq_common::telemetry::{LogSettings, subscriber};
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

/// While there is only one dispatcher, whether a line is of interest is asked on the thread that comes to it first, and remembered for all:
/// another test's thread, which keeps no log, would say that it is not.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| {
    Dispatch::new(subscriber(&LogSettings::default(), false, std::io::sink).expect("a level").0)
});

/// Keeps what this thread logs.
#[derive(Clone, Default)]
pub(crate) struct KeptLog(Arc<Mutex<Vec<u8>>>);

impl Write for KeptLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl KeptLog {
    /// Keeps what is logged while the guard lives.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        LazyLock::force(&SECOND);
        let log = Self::default();
        let kept = log.clone();
        let (subscriber, _level) =
            subscriber(&LogSettings::default(), false, move || kept.clone()).expect("a level");
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The warnings that have `text` in them.
    pub(crate) fn warnings(&self, text: &str) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = String::from_utf8_lossy(&kept).into_owned();
        let is_meant = |line: &&str| line.contains("WARN") && line.contains(text);
        kept.lines().filter(is_meant).map(str::to_owned).collect()
    }
}
