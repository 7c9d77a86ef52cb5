//! Figures of all rounds, as tables and as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark's tables go to standard output")]

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::bench::cost::{Cost, Footprint};
use crate::bench::loopback::Loopback;
use crate::bench::rows::Latency;

const MEBIBYTE: f64 = 1_048_576.0;

/// The rounds of one row.
#[derive(Debug, Serialize)]
struct Row<T> {
    what: String,
    broker: String,
    rounds: Vec<T>,
}

/// A broker's memory and files at a named moment.
#[derive(Debug, Serialize)]
struct Moment {
    when: String,
    broker: String,
    footprint: Footprint,
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    loopback: Vec<Loopback>,
    throughput: Vec<Row<Cost>>,
    latency: Vec<Row<Latency>>,
    moments: Vec<Moment>,
    notes: Vec<String>,
}

impl Report {
    /// Adds a round of the loopback pair.
    pub fn loopback(&mut self, round: Loopback) {
        self.loopback.push(round);
    }

    /// Adds a round of a throughput row.
    pub fn throughput(&mut self, what: &str, broker: &str, round: Cost) {
        eprintln!(
            "{broker}: {what}: {:.1} MB/s, {} broker CPU s/GB",
            round.megabytes_a_second(),
            optional(round.broker_cpu_a_gigabyte(), 2)
        );
        add(&mut self.throughput, what, broker, round);
    }

    /// Adds a round of a latency row.
    pub fn latency(&mut self, what: &str, broker: &str, round: Latency) {
        eprintln!(
            "{broker}: {what}: p50 {:.2} ms, p99 {:.2} ms",
            round.acknowledgement.p50_ms, round.acknowledgement.p99_ms
        );
        add(&mut self.latency, what, broker, round);
    }

    /// Adds a broker's memory and files.
    pub fn moment(&mut self, when: &str, broker: &str, footprint: Option<Footprint>) {
        if let Some(footprint) = footprint {
            self.moments.push(Moment {
                when: when.to_owned(),
                broker: broker.to_owned(),
                footprint,
            });
        }
    }

    /// Adds a sentence, once.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Prints the tables.
    pub fn print(&self) {
        self.print_throughput();
        self.print_latency();
        if !self.moments.is_empty() {
            println!(
                "\n{:<44}{:<10}{:>9}{:>10}{:>8}",
                "memory", "broker", "RSS MiB", "peak MiB", "files"
            );
        }
        for Moment { when, broker, footprint } in &self.moments {
            println!(
                "{when:<44}{broker:<10}{:>9.1}{:>10.1}{:>8}",
                footprint.resident_bytes as f64 / MEBIBYTE,
                footprint.peak_resident_bytes as f64 / MEBIBYTE,
                footprint.open_files
            );
        }
        if !self.notes.is_empty() {
            println!();
        }
        self.notes.iter().for_each(|note| println!("{note}"));
    }

    fn print_throughput(&self) {
        if self.throughput.is_empty() && self.loopback.is_empty() {
            return;
        }
        println!(
            "\n{:<44}{:<10}{:>9}{:>9}{:>11}{:>11}{:>9}{:>12}{:>9}{:>7}",
            "throughput",
            "broker",
            "MB/s",
            "median",
            "records/s",
            "CPU s/GB",
            "median",
            "client s/GB",
            "RSS MiB",
            "files"
        );
        if !self.loopback.is_empty() {
            let of =
                |value: fn(&Loopback) -> f64| self.loopback.iter().map(value).collect::<Vec<_>>();
            let rate = of(|pair| pair.bytes as f64 / 1e6 / pair.seconds);
            let sender = of(|pair| pair.sender_cpu_seconds * 1e9 / pair.bytes as f64);
            let receiver = of(|pair| pair.receiver_cpu_seconds * 1e9 / pair.bytes as f64);
            println!(
                "{:<44}{:<10}{:>9.1}{:>9.1}{:>11}{:>11.2}{:>9.2}{:>12.2}{:>9}{:>7}",
                "bare loopback, 64 KiB writes",
                "-",
                highest(&rate),
                median(&rate),
                "-",
                lowest(&sender),
                median(&sender),
                lowest(&receiver),
                "-",
                "-"
            );
        }
        self.throughput.iter().for_each(print_cost);
    }

    fn print_latency(&self) {
        if self.latency.is_empty() {
            return;
        }
        println!(
            "\n{:<44}{:<10}{:>10}{:>8}{:>8}{:>8}{:>8}{:>9}{:>10}{:>10}{:>8}{:>8}{:>8}{:>10}",
            "latency, ms",
            "broker",
            "records/s",
            "p50",
            "p99",
            "p99.9",
            "max",
            "late p99",
            "sync p50",
            "sync p99",
            "bound",
            "at p50",
            "at p99",
            "CPU s/GB"
        );
        for row in &self.latency {
            let mut rounds: Vec<&Latency> = row.rounds.iter().collect();
            rounds.sort_by(|a, b| a.acknowledgement.p99_ms.total_cmp(&b.acknowledgement.p99_ms));
            let (Some(best), Some(median)) = (rounds.first(), rounds.get(rounds.len() / 2)) else {
                continue;
            };
            print_one_latency(&format!("{}: best", row.what), &row.broker, best);
            print_one_latency(&format!("{}: median", row.what), &row.broker, median);
        }
        println!(
            "late: how long after they were due records reached the client, which is in the latency and none of the broker's"
        );
        println!(
            "sync: fdatasync of 16 KiB appended, on the same disk just before and just after; bound: 2.5 x its p99 + 2 ms"
        );
        println!(
            "at p50, at p99: the broker's own histogram of Produce requests; - where it has none"
        );
    }

    /// Broker processor seconds a gigabyte of a row, the median of its rounds.
    #[must_use]
    pub fn cpu_a_gigabyte(&self, what: &str, broker: &str) -> Option<f64> {
        let row = self.throughput.iter().find(|row| row.what == what && row.broker == broker)?;
        let values: Vec<f64> = row.rounds.iter().filter_map(Cost::broker_cpu_a_gigabyte).collect();
        (!values.is_empty()).then(|| median(&values))
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        std::fs::write(file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", file.display()))
    }
}

fn add<T>(rows: &mut Vec<Row<T>>, what: &str, broker: &str, round: T) {
    match rows.iter_mut().find(|row| row.what == what && row.broker == broker) {
        Some(row) => row.rounds.push(round),
        None => {
            rows.push(Row { what: what.to_owned(), broker: broker.to_owned(), rounds: vec![round] })
        }
    }
}

fn print_cost(row: &Row<Cost>) {
    let of = |value: fn(&Cost) -> f64| row.rounds.iter().map(value).collect::<Vec<_>>();
    let rates = of(Cost::megabytes_a_second);
    let cpu: Vec<f64> = row.rounds.iter().filter_map(Cost::broker_cpu_a_gigabyte).collect();
    let footprints = row.rounds.iter().filter_map(|cost| cost.broker);
    let resident = footprints.clone().map(|broker| broker.resident_bytes).max();
    let files = footprints.map(|broker| broker.open_files).max();
    println!(
        "{:<44}{:<10}{:>9.1}{:>9.1}{:>11.0}{:>11}{:>9}{:>12.2}{:>9}{:>7}",
        row.what,
        row.broker,
        highest(&rates),
        median(&rates),
        highest(&of(Cost::records_a_second)),
        optional((!cpu.is_empty()).then(|| lowest(&cpu)), 2),
        optional((!cpu.is_empty()).then(|| median(&cpu)), 2),
        lowest(&of(Cost::client_cpu_a_gigabyte)),
        optional(resident.map(|bytes| bytes as f64 / MEBIBYTE), 1),
        optional(files.map(|files| files as f64), 0)
    );
}

fn print_one_latency(what: &str, broker: &str, round: &Latency) {
    let Latency { acknowledgement, late, broker: at, sync, cost } = round;
    println!(
        "{what:<44}{broker:<10}{:>10.0}{:>8.2}{:>8.2}{:>8.2}{:>8.2}{:>9.2}{:>10.2}{:>10.2}{:>8.2}{:>8}{:>8}{:>10}",
        cost.records_a_second(),
        acknowledgement.p50_ms,
        acknowledgement.p99_ms,
        acknowledgement.p999_ms,
        acknowledgement.max_ms,
        late.p99_ms,
        sync.p50_ms,
        sync.p99_ms,
        sync.p99_ms * 2.5 + 2.0,
        optional(at.map(|at| at.p50_ms), 2),
        optional(at.map(|at| at.p99_ms), 2),
        optional(cost.broker_cpu_a_gigabyte(), 1)
    );
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn highest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn lowest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Of an even number, the upper of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
