//! `$shared/` groups: members that work, on one partition, beside what they could do at best and beside a plain group
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use robustmq_tests::bench::cost::{Cost, Watch};
use robustmq_tests::bench::shared::{Commits, Job, Member, fill};
use robustmq_tests::bench::{Broker, Kafka};

/// Has stock consumers (librdkafka) work on one partition as members of a shared group. Fails if a record is missing; judges no time.
///
/// Example: scripts/bench shared --row linear --members 32 --seconds 100
#[derive(Parser)]
struct Arguments {
    /// What to measure; all if left out; may be given several times
    #[arg(long, value_enum)]
    row: Vec<What>,
    /// Members; may be given several times
    #[arg(long, default_values_t = [1, 8, 32])]
    members: Vec<usize>,
    /// What a record takes a member, in milliseconds
    #[arg(long, default_value_t = 5)]
    work_ms: u64,
    /// How long members work, in a row
    #[arg(long, default_value_t = 100)]
    seconds: u64,
    /// Records of 1 KB that fast members are given, in a row
    #[arg(long, default_value_t = 6_000_000)]
    dispatched: u64,
    /// A directory on the disk that the broker is to use
    #[arg(long, default_value = ".")]
    dir: std::path::PathBuf,
    /// Be one member, for another run of this program to kill
    #[arg(long, hide = true, num_args = 3)]
    member: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// How much of their time members work, with automatic commits every 5 s and with one each 100 records
    Linear,
    /// A member that is added to busy ones: its first record, and what the others do meanwhile
    Added,
    /// A client that is gone without a word: when its records are with others
    Gone,
    /// 8 fast members on one partition, beside a plain group of 8 on 8 partitions
    Dispatch,
    /// One slow member of 8: when the group is through, beside when it could be
    Fairness,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    broker: Broker,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some([bootstrap, topic, group]) = arguments.member.as_deref() {
        return be_a_member(bootstrap, topic, group);
    }
    let broker = Broker::start(&arguments.dir, stock).await?;
    let bench = Bench { arguments: &arguments, broker };
    let wants = |what| arguments.row.is_empty() || arguments.row.contains(&what);
    if wants(What::Linear) {
        bench.linear().await?;
    }
    if wants(What::Added) {
        bench.added().await?;
    }
    if wants(What::Gone) {
        bench.gone().await?;
    }
    if wants(What::Dispatch) {
        bench.dispatch().await?;
    }
    if wants(What::Fairness) {
        bench.fairness().await?;
    }
    Ok(())
}

fn stock(bootstrap: &str) -> Kafka {
    Kafka {
        bootstrap: bootstrap.to_owned(),
        producer_settings: Vec::new(),
        consumer_settings: Vec::new(),
    }
}

/// Works until it is killed, and says when it has been given something.
fn be_a_member(bootstrap: &str, topic: &str, group: &str) -> anyhow::Result<()> {
    let job = Job {
        topic: topic.to_owned(),
        group: group.to_owned(),
        work: Duration::from_secs(1),
        commits: Commits::Automatic(Duration::from_secs(3600)),
    };
    let member = Member::start(&stock(bootstrap), &job)?;
    let first = || *member.done.first.lock().unwrap_or_else(PoisonError::into_inner);
    while first().is_none() {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    println!("working");
    loop {
        std::thread::park();
    }
}

impl Bench<'_> {
    fn kafka(&self) -> &Kafka {
        &self.broker.kafka
    }

    fn work(&self) -> Duration {
        Duration::from_millis(self.arguments.work_ms)
    }

    /// A topic with `count` records, and a job on it.
    async fn job(
        &self,
        partitions: i32,
        count: u64,
        bytes: usize,
        commits: Commits,
    ) -> anyhow::Result<Job> {
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        let created = self.kafka().create_topic(&name, partitions, &[]).await?;
        created.map_err(|code| anyhow::anyhow!("{name} is refused: {code}"))?;
        let (kafka, topic) = (self.kafka().clone(), name.clone());
        tokio::task::spawn_blocking(move || fill(&kafka, &topic, partitions, count, bytes))
            .await??;
        let group = format!("$shared/{name}");
        Ok(Job { topic: name, group, work: self.work(), commits })
    }

    fn start(&self, job: &Job, members: usize) -> anyhow::Result<Vec<Member>> {
        (0..members).map(|_| Member::start(self.kafka(), job)).collect()
    }

    fn records_for(&self, members: usize) -> u64 {
        let a_second = 1000 / self.arguments.work_ms.max(1);
        let all = a_second * members as u64 * self.arguments.seconds;
        all + all / 3
    }

    async fn linear(&self) -> anyhow::Result<()> {
        println!("members  commits          records/s  worked  broker CPU s/s");
        let rows = [
            ("every 5 s", Commits::Automatic(Duration::from_secs(5))),
            ("each 100 records", Commits::Each(100)),
        ];
        for members in &self.arguments.members {
            for (name, commits) in rows {
                let job = self.job(1, self.records_for(*members), 100, commits).await?;
                let watch = Watch::start(self.broker.process()?)?;
                let crew = self.start(&job, *members)?;
                tokio::time::sleep(Duration::from_secs(self.arguments.seconds)).await;
                let records = total(&crew);
                let busy = busy(&crew);
                let cost = watch.stop(Instant::now(), records, records)?;
                let worked = busy / (*members as f64 * cost.seconds);
                let cpu = cost.broker_cpu_seconds.unwrap_or_default() / cost.seconds;
                println!(
                    "{members:>7}  {name:<16} {:>9.0}  {worked:>6.3}  {cpu:>14.3}",
                    cost.records_a_second()
                );
                stop(crew).await?;
                self.kafka().delete_topic(&job.topic).await?;
            }
        }
        Ok(())
    }

    async fn added(&self) -> anyhow::Result<()> {
        let members = 32;
        let commits = Commits::Automatic(Duration::from_secs(5));
        let job = self.job(1, self.records_for(members), 100, commits).await?;
        let mut crew = self.start(&job, members)?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let before = rates(&crew, 5).await;
        let joined = Instant::now();
        crew.push(Member::start(self.kafka(), &job)?);
        let during = rates(&crew[..members], 5).await;
        let first = *crew[members].done.first.lock().unwrap_or_else(PoisonError::into_inner);
        let first = first.context("the new member got nothing")? - joined;
        let lowest = |rates: &[u64]| rates.iter().min().copied().unwrap_or_default();
        println!(
            "\na member added to {members}: first record after {:.2} s; the others: {} records a second before, at least {} after",
            first.as_secs_f64(),
            before.iter().sum::<u64>() / before.len() as u64,
            lowest(&during),
        );
        stop(crew).await
    }

    /// A client that is gone without a word: its process is stopped for good by the end of its connections.
    async fn gone(&self) -> anyhow::Result<()> {
        const MEMBERS: usize = 32;
        const RECORDS: u64 = 16_000;
        let commits = Commits::Automatic(Duration::from_secs(5));
        let job = self.job(1, RECORDS, 100, commits).await?;
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .arg("--member")
            .args([&self.kafka().bootstrap, &job.topic, &job.group])
            .kill_on_drop(true)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("start a member")?;
        let stdout = child.stdout.take().context("standard output was asked for")?;
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
        lines.next_line().await?.context("the member got nothing")?;
        let crew = self.start(&job, MEMBERS)?;
        tokio::time::sleep(Duration::from_secs(6)).await;
        child.kill().await?;
        let killed = Instant::now();
        let mut last = total(&crew);
        let mut changed = killed;
        // Its records come back once; when nothing has come for as long as a session lasts, all are there.
        while changed.elapsed() < Duration::from_secs(15) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = total(&crew);
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
        println!(
            "\na client is gone: {MEMBERS} others had worked on all {last} records {:.2} s later",
            (changed - killed).as_secs_f64()
        );
        ensure!(last <= RECORDS, "{last} of {RECORDS}");
        stop(crew).await
    }

    async fn dispatch(&self) -> anyhow::Result<()> {
        println!("\n8 fast members, 1 KB   commits            MB/s  broker CPU s/GB");
        for (name, commits) in [
            ("each 1,000 records", Commits::Each(1_000)),
            ("every 5 s", Commits::Automatic(Duration::from_secs(5))),
        ] {
            let plain =
                self.fast_members("plain, 8 partitions", 8, "plain-", name, commits).await?;
            let shared =
                self.fast_members("shared, 1 partition", 1, "$shared/", name, commits).await?;
            let ratio = shared.megabytes_a_second() / plain.megabytes_a_second();
            println!("throughput: {ratio:.2} of the plain group's");
        }
        Ok(())
    }

    async fn fast_members(
        &self,
        what: &str,
        partitions: i32,
        prefix: &str,
        name: &str,
        commits: Commits,
    ) -> anyhow::Result<Cost> {
        let all = self.arguments.dispatched;
        let mut job = self.job(partitions, all, 1024, commits).await?;
        job.work = Duration::ZERO;
        job.group = format!("{prefix}{}", job.topic);
        let crew = self.start(&job, 8)?;
        // Joining is not what is measured.
        while total(&crew) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let watch = Watch::start(self.broker.process()?)?;
        let before = total(&crew);
        while total(&crew) < all {
            ensure!(watch.started().elapsed() < Duration::from_secs(300), "records are missing");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let records = all - before;
        let cost = watch.stop(Instant::now(), records, records * 1024)?;
        println!(
            "{what:<22} {name:<18} {:>5.0}  {:>15.2}",
            cost.megabytes_a_second(),
            cost.broker_cpu_a_gigabyte().unwrap_or_default()
        );
        stop(crew).await?;
        self.kafka().delete_topic(&job.topic).await?;
        Ok(cost)
    }

    async fn fairness(&self) -> anyhow::Result<()> {
        let (fast, slow) = (self.work(), self.work() * 10);
        let a_second = 7.0 / fast.as_secs_f64() + 1.0 / slow.as_secs_f64();
        // What seven fast ones do in the time, and a tenth of one more.
        let records = 71 * 100 * self.arguments.seconds / self.arguments.work_ms.max(1);
        for (name, commits) in [
            ("every 5 s", Commits::Automatic(Duration::from_secs(5))),
            ("each 10 records", Commits::Each(10)),
        ] {
            let job = self.job(1, records, 100, commits).await?;
            let started = Instant::now();
            let mut crew = self.start(&Job { work: slow, ..job.clone() }, 1)?;
            crew.extend(self.start(&job, 7)?);
            while total(&crew) < records {
                ensure!(started.elapsed() < Duration::from_secs(600), "records are missing");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "\none slow member of 8, commits {name}: {records} records in {seconds:.1} s, {:.2} of the ideal",
                seconds / (records as f64 / a_second)
            );
            stop(crew).await?;
        }
        Ok(())
    }
}

fn total(crew: &[Member]) -> u64 {
    crew.iter().map(|member| member.done.records.load(Ordering::Relaxed)).sum()
}

fn busy(crew: &[Member]) -> f64 {
    let us: u64 = crew.iter().map(|member| member.done.busy_us.load(Ordering::Relaxed)).sum();
    us as f64 / 1e6
}

/// Records of all members in each of the next seconds.
async fn rates(crew: &[Member], seconds: u64) -> Vec<u64> {
    let mut rates = Vec::new();
    for _ in 0..seconds {
        let before = total(crew);
        tokio::time::sleep(Duration::from_secs(1)).await;
        rates.push(total(crew) - before);
    }
    rates
}

async fn stop(crew: Vec<Member>) -> anyhow::Result<()> {
    let stop = move || crew.into_iter().map(Member::stop).collect::<anyhow::Result<Vec<()>>>();
    tokio::task::spawn_blocking(stop).await?.map(drop)
}
