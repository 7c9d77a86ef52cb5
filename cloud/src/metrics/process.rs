//! What the process takes of the machine, by the names that Prometheus gives it, from Linux's `/proc` (proc_pid_stat(5)). Elsewhere there is
//! nothing to tell.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks of the clock in a second, in `/proc`: 100 on every architecture that Rust is built for.
const TICKS: f64 = 100.0;

/// A [`Collector`].
#[derive(Debug, Default)]
pub struct ProcessMetrics;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Taken {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: i64,
}

/// The value of a line such as `VmRSS:  1234 kB` or `btime 1234`.
fn number(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// From `/proc/self/stat`, `/proc/self/status` and `/proc/stat`.
fn parse(stat: &str, status: &str, machine: &str) -> Option<Taken> {
    // The name before it may have anything in it.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // The first of these is the third in the manual.
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = number(machine, "btime ")?;
    Some(Taken {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
        start_seconds: f64::from(u32::try_from(boot).ok()?) + ticks(22)? / TICKS,
        resident_bytes: number(status, "VmRSS:")?.saturating_mul(1024),
    })
}

fn taken() -> Option<Taken> {
    let read = |path| fs::read_to_string(path).ok();
    parse(&read("/proc/self/stat")?, &read("/proc/self/status")?, &read("/proc/stat")?)
}

/// Its own directory is one of them while they are counted.
fn open_files() -> Option<i64> {
    let files = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(files.saturating_sub(1)).ok()
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(taken) = taken() {
            let (name, help) = ("process_cpu_seconds", "CPU time of the user and the system");
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(taken.cpu_seconds).encode(metric)?;
            let (name, help) = ("process_start_time_seconds", "When it began, since 1970");
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(taken.start_seconds).encode(metric)?;
            let (name, help) = ("process_resident_memory_bytes", "Resident memory");
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(taken.resident_bytes).encode(metric)?;
        }
        if let Some(files) = open_files() {
            let (name, help) = ("process_open_fds", "Open file descriptors");
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(files).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Taken, open_files, parse, taken};

    #[test]
    fn what_linux_says_is_read_whatever_the_process_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 12345 1000 7 18446744073709551615";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t8\n";
        let expected =
            Taken { cpu_seconds: 3.0, start_seconds: 1_000_123.45, resident_bytes: 1024 * 1024 };
        assert_eq!(parse(stat, status, "cpu 1 2 3\nbtime 1000000\n"), Some(expected));
        assert_eq!(parse("42 (a", status, "btime 1\n"), None);
        assert_eq!(parse(stat, "", "btime 1\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_something() {
        let taken = taken().expect("there is /proc");
        assert!(taken.resident_bytes > 1024 * 1024 && taken.start_seconds > 1e9, "{taken:?}");
        assert!(open_files().is_some_and(|files| files >= 3));
    }
}
