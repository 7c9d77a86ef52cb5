//! Dataset topics: bytes from S3 beside LRU, random and no cache; readers and accelerators that wait or do not
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use robustmq_tests::bench::cost::Watch;
use robustmq_tests::bench::dataset::accelerator::{self, A100_SECONDS, H100_SECONDS, Plan};
use robustmq_tests::bench::dataset::jumps::Plan as JumpPlan;
use robustmq_tests::bench::dataset::members::{self, Job};
use robustmq_tests::bench::dataset::options::Format;
use robustmq_tests::bench::dataset::run::{blocking, read};
use robustmq_tests::bench::dataset::stage::{BUCKET, CacheBytes, PREFIX, Topic};
use robustmq_tests::bench::dataset::status::Cache;
use robustmq_tests::bench::dataset::training::{train, train_directly};
use robustmq_tests::bench::dataset::{self, MEGABYTE, Options, Reader, Stage, whole};
use robustmq_tests::bench::loopback;
use robustmq_tests::dataset::account::Catalogue;
use robustmq_tests::dataset::tar::index_file;
use robustmq_tests::dataset::{Dataset, File, Kind, Shape};

/// Bytes of an object in the row `create`.
const SMALL_BYTES: usize = 100;
/// The budget of the broker there, which reads nothing.
const CREATE_CACHE_BYTES: u64 = 64 << 20;

/// Reads dataset topics with stock consumers (librdkafka). The S3 server is part of this program and keeps objects in memory; each row has a
/// broker of its own, with an empty cache. Fails if a record is missing, doubled or has other bytes; judges no time.
///
/// Example: scripts/bench dataset --row scan --row stall --gigabytes 2
#[derive(Parser)]
struct Arguments {
    /// What to measure; all if left out; may be given several times
    #[arg(long, value_enum)]
    row: Vec<What>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Bytes from S3 in later epochs, in the same order and in another each time, beside other policies
    Scan,
    /// The same at a fixed rate, on a link of 1.25 times what is not in the cache
    Stall,
    /// The first epoch on a link that is just wide enough: a `$shared/` group on two topics over one prefix
    Cold,
    /// All in memory: what one consumer gets, and what it costs the broker
    Warm,
    /// Accelerators that train resnet50, beside the same without a broker
    Resnet,
    /// A topic over many objects
    Create,
    /// The epoch after the broker was killed, with a cache on SSD
    Crash,
    /// 64 readers at random positions: the broker's memory beside the budget
    Jumps,
    /// The broker's memory in a cache that is much smaller than the data, for each format
    Memory,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { row, options } = &Arguments::parse();
    ensure!(options.share > 0.0 && options.share < 1.0, "--share is between 0 and 1");
    ensure!(options.demand > 0.0 && options.accelerator_demand > 0.0, "a demand is above 0");
    let wants = |what| row.is_empty() || row.contains(&what);
    println!(
        "S3: {} ms and on top {} ms at the median, {} times that in {} of 1",
        options.least_ms, options.median_ms, options.tail_factor, options.tail
    );
    if [What::Scan, What::Stall].into_iter().any(wants) {
        let data = options.data_of(options.format.unwrap_or_default(), options.gigabytes, 1)?;
        tell(options, &data);
        if wants(What::Scan) {
            scan(options, &data).await?;
        }
        if wants(What::Stall) {
            stall(options, &data).await?;
        }
    }
    if [What::Cold, What::Warm, What::Crash, What::Jumps].into_iter().any(wants) {
        let data = options.data(options.gigabytes, 1)?;
        tell(options, &data);
        if wants(What::Cold) {
            cold(options, &data).await?;
        }
        if wants(What::Warm) {
            warm(options, &data).await?;
        }
        if wants(What::Crash) {
            crash(options, &data).await?;
        }
        if wants(What::Jumps) {
            jumps(options, &data).await?;
        }
    }
    if wants(What::Memory) {
        memory(options).await?;
    }
    if wants(What::Resnet) {
        resnet(options).await?;
    }
    if wants(What::Create) {
        create(options).await?;
    }
    Ok(())
}

/// Says what a dataset is.
fn tell(options: &Options, data: &Catalogue) {
    let dataset = data.dataset();
    println!(
        "dataset: {:.3} GB in {} shards of {} samples of {} B",
        dataset.bytes() as f64 / 1e9,
        dataset.files.len(),
        options.shard_samples,
        options.sample_bytes
    );
}

fn of_format(options: &Options, topic: Topic) -> Topic {
    Topic { format: options.format.unwrap_or_default().name(), ..topic }
}

async fn scan(options: &Options, data: &Arc<Catalogue>) -> anyhow::Result<()> {
    let Options { share, epochs, besides_mib, .. } = *options;
    let dataset = data.dataset();
    let least = 1.0 - share;
    println!(
        "\nscan: {epochs} epochs, the cache holds {share} of the data and has {besides_mib} MiB besides, no limit on the link, no limit on the reader\n\
         {:<10}{:<30}{:>22}{:>18}{:>10}",
        "shuffle", "policy", "S3/data, epochs 2 on", "over (1-f) data", "MB/s"
    );
    for shuffle in ["none", "shards"] {
        let stage = options.stage(dataset, share, 0).await?;
        let topic = of_format(options, Topic::over("scan", epochs, shuffle, 1));
        let run = read(&stage, data, &topic, None).await?;
        let measured = run.share_of_later_epochs(dataset);
        let print = |policy: &str, of_data: f64, rate: &str| {
            let over = of_data / least;
            println!("{shuffle:<10}{policy:<30}{of_data:>22.3}{over:>18.2}{rate:>10}");
        };
        print("robustmq", measured, &format!("{:.0}", run.cost.megabytes_a_second()));
        let trace = run.trace(dataset);
        let capacity = whole(dataset.bytes() as f64 * share);
        let all = dataset.bytes() as f64 * (epochs - 1) as f64;
        let simulated = [
            ("Belady, simulated", trace.belady(capacity)),
            ("Belady with what is besides", trace.belady(capacity + (besides_mib << 20))),
            ("LRU, simulated", trace.lru(capacity)),
            ("random, simulated", trace.random(capacity, 1)),
            ("no cache", trace.uncached()),
        ];
        for (policy, missed) in simulated {
            print(policy, missed as f64 / all, "");
        }
        show_cache(run.later.as_ref());
    }
    Ok(())
}

async fn stall(options: &Options, data: &Arc<Catalogue>) -> anyhow::Result<()> {
    let Options { share, epochs, demand, besides_mib, .. } = *options;
    let link = 1.25 * (1.0 - share) * demand;
    println!(
        "\nstall: {epochs} epochs at {demand} MB/s on a link of {link:.1} MB/s, the cache holds {share} of the data and has {besides_mib} MiB besides; epochs 2 on\n\
         {:<10}{:>26}{:>16}{:>18}{:>22}",
        "shuffle",
        "reads without waiting",
        "broker's stall",
        "reader's stall",
        "S3 over (1-f) data"
    );
    for shuffle in ["none", "shards"] {
        let stage = options.stage(data.dataset(), share, whole(link * MEGABYTE)).await?;
        let topic = of_format(options, Topic::over("stall", epochs, shuffle, 1));
        let run = read(&stage, data, &topic, Some(demand * MEGABYTE)).await?;
        let over = run.share_of_later_epochs(data.dataset()) / (1.0 - share);
        let waited: Duration = run.epochs.iter().skip(1).map(|epoch| epoch.waited).sum();
        let reader = waited.as_secs_f64() / run.cost.seconds;
        let cache = run.later.unwrap_or_default();
        let without = cache
            .reads()
            .zip(cache.waited_reads)
            .map(|(reads, waited)| percent(1.0 - waited as f64 / reads.max(1) as f64));
        let broker =
            cache.waited_micros.map(|micros| percent(micros as f64 / 1e6 / run.cost.seconds));
        let shown = |figure: Option<String>| figure.unwrap_or("-".to_owned());
        println!(
            "{shuffle:<10}{:>26}{:>16}{:>18}{over:>22.2}",
            shown(without),
            shown(broker),
            percent(reader)
        );
        show_cache(run.later.as_ref());
    }
    Ok(())
}

async fn cold(options: &Options, data: &Arc<Catalogue>) -> anyhow::Result<()> {
    let Options { share, demand, members, .. } = *options;
    let stage = options.stage(data.dataset(), share, whole(demand * MEGABYTE)).await?;
    let names = ["cold-1", "cold-2"];
    for name in names {
        stage.create(&Topic::over(name, 1, "none", 4)).await?;
    }
    // Each of the topics is read at the rate of the link.
    let job = Job {
        group: "$shared/cold".to_owned(),
        topics: names.map(str::to_owned).to_vec(),
        members,
        rate: 2.0 * demand * MEGABYTE,
    };
    let (kafka, catalogue) = (stage.kafka.clone(), Arc::clone(data));
    let took = blocking(move || members::work(&kafka, &job, &catalogue)).await?;
    for name in names {
        stage.check_end(data.dataset(), &Topic::over(name, 1, "none", 4)).await?;
    }
    let (given, size) = (stage.s3.given_bytes() as f64, data.dataset().bytes() as f64);
    println!(
        "\ncold: one epoch, {members} members of a $shared/ group on two topics over one prefix, each at {demand} MB/s, on a link of {demand} MB/s\n\
         S3 bytes/data {:.3}; {:.1} s, where the link takes {:.1} s",
        given / size,
        took.as_secs_f64(),
        size / demand / MEGABYTE
    );
    for name in names {
        show_cache(stage.status(name).await?.map(|status| status.cache).as_ref());
    }
    Ok(())
}

async fn warm(options: &Options, data: &Arc<Catalogue>) -> anyhow::Result<()> {
    let size = data.dataset().bytes() as f64;
    let epochs = 1 + whole((options.warm_gigabytes * 1e9 / size).ceil()).max(1);
    let stage = options.stage(data.dataset(), 1.5, 0).await?;
    let run = read(&stage, data, &Topic::over("warm", epochs, "none", 1), None).await?;
    let pair = blocking(|| loopback::run(Duration::from_secs(3))).await?;
    let gigabytes = pair.bytes as f64 / 1e9;
    println!(
        "\nwarm: one consumer, {:.2} GB in epochs 2 to {epochs} from a cache that holds all\n\
         {:<28}{:>10}{:>18}{:>18}",
        run.cost.bytes as f64 / 1e9,
        "",
        "MB/s",
        "sender CPU s/GB",
        "reader CPU s/GB*"
    );
    let print = |name: &str, rate: f64, sender: f64, reader: f64| {
        println!("{name:<28}{rate:>10.0}{sender:>18.3}{reader:>18.3}");
    };
    let sender = run.cost.broker_cpu_a_gigabyte().unwrap_or_default();
    let rate = run.cost.megabytes_a_second();
    print("robustmq", rate, sender, run.cost.client_cpu_a_gigabyte());
    print(
        "bare loopback",
        gigabytes * 1e3 / pair.seconds,
        pair.sender_cpu_seconds / gigabytes,
        pair.receiver_cpu_seconds / gigabytes,
    );
    println!("  * with the hash of each sample\n  S3 bytes/data {:.3}", run.s3_bytes as f64 / size);
    show_cache(run.later.as_ref());
    Ok(())
}

async fn resnet(options: &Options) -> anyhow::Result<()> {
    let accelerators = usize::from(options.accelerators);
    let data = options.data(options.accelerator_gigabytes, accelerators)?;
    let demand = options.accelerator_demand * MEGABYTE;
    let sample_bytes = options.sample_bytes as f64;
    let plan = Plan {
        samples: data.dataset().samples.len() / accelerators,
        epochs: usize::try_from(options.accelerator_epochs)?,
        batch: options.batch,
        time_of_sample: Duration::from_secs_f64(accelerators as f64 * sample_bytes / demand),
    };
    let scale = |seconds: f64| plan.time_of_sample.as_secs_f64() / seconds;
    println!(
        "\nresnet50: {accelerators} emulated accelerators, {:.2} ms of compute a sample (MLPerf Storage's H100 slowed down {:.1} times, A100 {:.1} times), steps of {} samples\n\
         {:.3} GB in {} shards; {} MB/s of demand, a link as wide, the cache holds {} of the data and has {} MiB besides",
        plan.time_of_sample.as_secs_f64() * 1e3,
        scale(H100_SECONDS),
        scale(A100_SECONDS),
        plan.batch,
        data.dataset().bytes() as f64 / 1e9,
        data.dataset().files.len(),
        options.accelerator_demand,
        options.share,
        options.besides_mib,
    );
    println!("{:<24}{:>14}{:>18}{:>16}", "", "AU, epoch 1", "AU, epochs 2 on", "S3/data/epoch");
    for (name, has_index, is_direct) in [
        ("robustmq", false, false),
        ("robustmq, index files", true, false),
        ("S3 without a broker", false, true),
    ] {
        let stage = options.stage(data.dataset(), options.share, whole(demand)).await?;
        let indexed = data.dataset().files.iter().filter(|_| has_index);
        for File { name, bytes } in indexed {
            stage.s3.put(BUCKET, &format!("{PREFIX}{name}.idx"), index_file(bytes).into());
        }
        let uses = match is_direct {
            false => train(&stage, &data, options.accelerators, &plan).await?,
            true => train_directly(&stage, &data, options.accelerators, &plan).await?,
        };
        let found = accelerator::utilisation(&uses);
        let later = &found[1..];
        let epochs = data.dataset().bytes() as f64 * plan.epochs as f64;
        println!(
            "{:<24}{:>14}{:>18}{:>16.3}",
            name,
            percent(found[0]),
            percent(later.iter().sum::<f64>() / later.len() as f64),
            stage.s3.given_bytes() as f64 / epochs
        );
        if !is_direct {
            show_cache(stage.status("resnet").await?.map(|status| status.cache).as_ref());
        }
    }
    Ok(())
}

async fn create(options: &Options) -> anyhow::Result<()> {
    let objects = options.objects;
    let shape = Shape { seed: 1, files: objects, samples: 1, sample_bytes: SMALL_BYTES };
    let cache = CacheBytes { memory: CREATE_CACHE_BYTES, ssd: 0 };
    let stage = Stage::start(&options.dir, cache, &options.consumer).await?;
    Dataset::make(Kind::Objects, &shape).put(&stage.s3, BUCKET, PREFIX);
    stage.s3.set_faults(options.faults(0));
    let began = Instant::now();
    let (listed, pages) = stage.list().await?;
    let listing = began.elapsed().as_secs_f64();
    ensure!(listed == objects, "{listed} objects were listed, of {objects}");
    let topic = Topic { format: "object", ..Topic::over("create", 1, "none", 1) };
    let began = Instant::now();
    stage.create(&topic).await?;
    let creation = began.elapsed().as_secs_f64();
    let known = stage.status(&topic.name).await?.and_then(|status| status.objects);
    if let Some(known) = known {
        ensure!(known == objects as u64, "the topic has {known} objects, of {objects}");
    }
    println!(
        "\ncreate: {objects} objects of {SMALL_BYTES} B in {pages} pages\n\
         {creation:.2} s, where the listing alone takes {listing:.2} s: {:.2} s more",
        creation - listing
    );
    Ok(())
}

/// What memory and SSD hold together is more than the data.
async fn crash(options: &Options, data: &Arc<Catalogue>) -> anyhow::Result<()> {
    const SHARE: f64 = 0.3;
    const SSD_SHARE: f64 = 1.0;
    let mut stage = options.stage_with_ssd(data.dataset(), SHARE, SSD_SHARE, 0).await?;
    let found = dataset::crash::read(&mut stage, data).await?;
    let of_data = |bytes: u64| bytes as f64 / data.dataset().bytes() as f64;
    println!(
        "\ncrash: the broker is killed between two epochs; memory holds {SHARE} of the data and has {} MiB besides, the SSD {SSD_SHARE}\n\
         of the data: in memory {:.3}, on SSD {:.3}; from S3 in the epoch before {:.3}, after {:.3}",
        options.besides_mib,
        of_data(found.in_memory),
        of_data(found.on_ssd),
        of_data(found.s3_before),
        of_data(found.s3_after),
    );
    Ok(())
}

async fn jumps(options: &Options, data: &Arc<Catalogue>) -> anyhow::Result<()> {
    const SHARE: f64 = 0.3;
    let plan = JumpPlan { topic: "jumps".to_owned(), readers: 64, jumps: 10, records: 20 };
    let stage = options.stage(data.dataset(), SHARE, 0).await?;
    let (idle, _) = stage.process()?.resident_bytes()?;
    let topic = Topic::over(&plan.topic, 1, "none", 1);
    stage.create(&topic).await?;
    // All of it is counted before anybody jumps.
    let (kafka, catalogue, name) = (stage.kafka.clone(), Arc::clone(data), topic.name.clone());
    let samples = data.dataset().samples.len();
    blocking(move || {
        let mut reader = Reader::start(&kafka, &name, [0], &catalogue)?;
        (0..samples).try_for_each(|_| reader.next_record().map(drop))
    })
    .await?;
    let (kafka, catalogue, all) = (stage.kafka.clone(), Arc::clone(data), plan.clone());
    let longest = blocking(move || dataset::jumps::read(&kafka, &all, &catalogue)).await?;
    let (_, peak) = stage.process()?.resident_bytes()?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "\njumps: {} readers go to {} places each and read {} records there, every sample's hash is checked\n\
         the cache may take {:.0} MiB; the broker took {:.0} MiB when idle and {:.0} MiB at most; the longest wait for a record was {:.2} s",
        plan.readers,
        plan.jumps,
        plan.records,
        mib(whole(data.dataset().bytes() as f64 * SHARE)) + options.besides_mib as f64,
        mib(idle),
        mib(peak),
        longest.as_secs_f64(),
    );
    Ok(())
}

/// Two partitions are read to their ends, at once. Shards are four times as large as elsewhere, since most of one has to be in memory in some
/// formats.
async fn memory(options: &Options) -> anyhow::Result<()> {
    const PARTITIONS: i32 = 2;
    const EPOCHS: u64 = 2;
    const LATER: Duration = Duration::from_secs(15);
    let options = &Options { shard_samples: 4 * options.shard_samples, ..options.clone() };
    println!(
        "\nmemory: {PARTITIONS} partitions, {EPOCHS} epochs, one consumer without a limit; the cache may take {} MiB\n\
         {:<14}{:>12}{:>12}{:>14}{:>16}{:>18}{:>12}",
        options.besides_mib,
        "format",
        "data, GB",
        "idle, MiB",
        "at most, MiB",
        "15 s later, MiB",
        "broker CPU s/GB",
        "S3/data"
    );
    let wanted = |format: &&Format| options.format.is_none_or(|wanted| wanted == **format);
    for format in Format::value_variants().iter().filter(wanted) {
        let data = options.data_of(*format, options.gigabytes, 1)?;
        let stage = options.stage(data.dataset(), 0.0, 0).await?;
        let process = stage.process()?;
        let (idle, _) = process.resident_bytes()?;
        let topic = Topic::over("memory", EPOCHS, "none", PARTITIONS);
        let topic = Topic { format: format.name(), ..topic };
        stage.create(&topic).await?;
        let (kafka, catalogue) = (stage.kafka.clone(), Arc::clone(&data));
        let records = data.dataset().samples.len() as u64 * EPOCHS;
        let watch = Watch::start(Some(process))?;
        let read = blocking(move || {
            let mut reader = Reader::start(&kafka, "memory", 0..PARTITIONS, &catalogue)?;
            (0..records).try_for_each(|_| reader.next_record().map(drop))?;
            reader.account.check_complete(EPOCHS)
        });
        read.await?;
        let bytes = data.dataset().content_bytes() * EPOCHS;
        let cost = watch.stop(Instant::now(), records, bytes)?;
        let (_, most) = process.resident_bytes()?;
        let given = stage.s3.given_bytes() as f64 / data.dataset().bytes() as f64;
        tokio::time::sleep(LATER).await;
        let (later, _) = process.resident_bytes()?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{:<14}{:>12.3}{:>12.0}{:>14.0}{:>16.0}{:>18.3}{given:>12.2}",
            format.to_possible_value().map_or_else(String::new, |value| value.get_name().into()),
            data.dataset().bytes() as f64 / 1e9,
            mib(idle),
            mib(most),
            mib(later),
            cost.broker_cpu_a_gigabyte().unwrap_or_default(),
        );
    }
    Ok(())
}

fn show_cache(cache: Option<&Cache>) {
    match cache {
        Some(cache) => println!("  broker's count: {cache}"),
        None => println!("  the broker does not count"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
