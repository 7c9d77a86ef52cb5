//! What a phase of a benchmark took: time, processor, memory, files.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

/// Bytes of a gigabyte: of the decimal ones, as disks and networks count.
const GIGABYTE: f64 = 1e9;

/// A process, seen through `/proc`.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// Processor time, user and system, of all its threads. In steps of a clock tick, 10 ms.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        let stat = self.read("stat")?;
        // The second field is the program's name in parentheses, and may hold anything. The third is first after it.
        let (_, fields) = stat.rsplit_once(')').context("no program name in /proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| -> anyhow::Result<u64> {
            Ok(fields.get(index).context("/proc/PID/stat is short")?.parse()?)
        };
        let ticks = ticks(11)? + ticks(12)?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Resident memory now, and the most there has been.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(self) -> anyhow::Result<(u64, u64)> {
        let status = self.read("status")?;
        let bytes = |key: &str| -> anyhow::Result<u64> {
            let line =
                status.lines().find_map(|line| line.strip_prefix(key)).context("no memory")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
        };
        Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
    }

    /// Files, sockets and pipes that it has open.
    ///
    /// # Errors
    /// When it has ended or belongs to somebody else.
    pub fn open_files(self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/fd", self.0);
        let entries = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
        Ok(u64::try_from(entries.count())?)
    }

    fn read(self, name: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{name}", self.0);
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    }
}

/// A broker's memory and files at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Footprint {
    /// Resident memory.
    pub resident_bytes: u64,
    /// The most of it since the process started.
    pub peak_resident_bytes: u64,
    /// Open files.
    pub open_files: u64,
}

impl Footprint {
    /// Reads it.
    ///
    /// # Errors
    /// When the process has ended or belongs to somebody else.
    pub fn of(process: Process) -> anyhow::Result<Self> {
        let (resident_bytes, peak_resident_bytes) = process.resident_bytes()?;
        Ok(Self { resident_bytes, peak_resident_bytes, open_files: process.open_files()? })
    }
}

/// What one phase took.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// From the first record to the last.
    pub seconds: f64,
    /// Values of records, without what the protocol adds.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// Processor time of the broker, where its process is known.
    pub broker_cpu_seconds: Option<f64>,
    /// Processor time of this process.
    pub client_cpu_seconds: f64,
    /// The broker at the end of the phase.
    pub broker: Option<Footprint>,
    /// Records sent before the clock started.
    pub uncounted_records: u64,
}

impl Cost {
    /// Million bytes a second.
    #[must_use]
    pub fn megabytes_a_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// Records a second.
    #[must_use]
    pub fn records_a_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// Processor seconds of the broker for a gigabyte.
    #[must_use]
    pub fn broker_cpu_a_gigabyte(&self) -> Option<f64> {
        self.broker_cpu_seconds.map(|seconds| seconds * GIGABYTE / self.bytes as f64)
    }

    /// Processor seconds of this process for a gigabyte.
    #[must_use]
    pub fn client_cpu_a_gigabyte(&self) -> f64 {
        self.client_cpu_seconds * GIGABYTE / self.bytes as f64
    }
}

/// Runs from the start of a phase to its end.
pub struct Watch {
    broker: Option<(Process, Duration)>,
    client: Duration,
    started: Instant,
}

impl Watch {
    /// Starts.
    ///
    /// # Errors
    /// When the broker has ended.
    pub fn start(broker: Option<Process>) -> anyhow::Result<Self> {
        let broker = match broker {
            Some(process) => Some((process, process.cpu()?)),
            None => None,
        };
        Ok(Self { broker, client: own_cpu()?, started: Instant::now() })
    }

    /// When it started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Stops; `ended` is when the last record was through.
    ///
    /// # Errors
    /// When the broker has ended.
    pub fn stop(self, ended: Instant, records: u64, bytes: u64) -> anyhow::Result<Cost> {
        let client = own_cpu()?.saturating_sub(self.client);
        let (broker_cpu_seconds, broker) = match self.broker {
            Some((process, before)) => {
                let spent = process.cpu()?.saturating_sub(before);
                (Some(spent.as_secs_f64()), Some(Footprint::of(process)?))
            }
            None => (None, None),
        };
        Ok(Cost {
            seconds: ended.saturating_duration_since(self.started).as_secs_f64(),
            bytes,
            records,
            broker_cpu_seconds,
            client_cpu_seconds: client.as_secs_f64(),
            broker,
            uncounted_records: 0,
        })
    }
}

/// Processor time of this process.
fn own_cpu() -> anyhow::Result<Duration> {
    clock(rustix::time::ClockId::ProcessCPUTime)
}

/// Processor time of the thread that asks.
///
/// # Errors
/// None that is known.
pub fn thread_cpu() -> anyhow::Result<Duration> {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(id: rustix::time::ClockId) -> anyhow::Result<Duration> {
    let clock = rustix::time::clock_gettime(id);
    Ok(Duration::new(u64::try_from(clock.tv_sec)?, u32::try_from(clock.tv_nsec)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_through_proc() {
        let this = Process(std::process::id());
        let footprint = Footprint::of(this).unwrap();
        assert!(footprint.resident_bytes > 0 && footprint.open_files > 2, "{footprint:?}");
        let started = Instant::now();
        while this.cpu().unwrap() < Duration::from_millis(20) {
            assert!(started.elapsed() < Duration::from_secs(30), "work takes processor time");
        }
    }
}
