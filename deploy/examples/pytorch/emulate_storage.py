#!/usr/bin/env python3
"""Emulated accelerators, as MLPerf Storage has them: a step sleeps for as long as it would compute, and needs its samples to be there.

    python emulate_storage.py --bootstrap 127.0.0.1:9092 --source file:///data/resnet --make 2
    python emulate_storage.py --bootstrap 127.0.0.1:9092 --source file:///data/resnet --direct file:///data/resnet
    python emulate_storage.py --bootstrap 127.0.0.1:9092 --source s3://bucket/resnet/ --direct http://s3:9000/bucket/resnet/

Utilisation is the time that an accelerator computed over the time of its epoch. With --direct the same loop follows that reads the shards
itself, each accelerator its own, one shard ahead. Samples are those of resnet50 there, 114,660 bytes on average.
"""

import argparse
import concurrent.futures
import io
import multiprocessing
import os
import pathlib
import queue
import random
import statistics
import sys
import tarfile
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from robustmq_torch import EpochDataset

SAMPLE = 114_660  # bytes: `record_length` of MLPerf Storage's resnet50, v1.0
SHARD = 128  # samples, where shards are made
BATCH = 400
SECONDS = {"h100": 0.224, "a100": 0.435}  # of its compute, for a batch of 400
RANGE = 8 * 1024 * 1024  # bytes of one GET


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True, help="the broker, HOST:PORT")
    parser.add_argument("--topic", default="resnet", help="created if it is missing")
    parser.add_argument("--source", help="what the topic is created on: s3://BUCKET/PREFIX/ or file:///DIR")
    parser.add_argument("--make", type=float, metavar="GB", help="of shards into the directory of --source, if it has none")
    parser.add_argument("--direct", metavar="URL", help="file:///DIR, or http://HOST/BUCKET/PREFIX/ of an S3 that needs no signature")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="of the requests of --direct")
    parser.add_argument("--accelerators", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--kind", choices=SECONDS, default="h100")
    parser.add_argument("--batch", type=int, default=BATCH, help="samples of a step")
    parser.add_argument("--slower", type=float, default=1.0, metavar="TIMES", help="than that kind, so that a small machine can feed them")
    args = parser.parse_args()
    args.compute = SECONDS[args.kind] / BATCH * args.batch * args.slower
    if args.make:
        make(args)
    create(args, args.accelerators)
    demand = args.batch * SAMPLE / args.compute / 1e6
    print(f"{args.kind}: {BATCH} samples in {SECONDS[args.kind]} s; here {args.slower:g} times that, {args.batch} in {args.compute:.3f} s")
    print(f"demand {demand:.1f} MB/s each, {args.accelerators * demand:.1f} MB/s for {args.accelerators}")
    show(args, f"topic {args.topic}", emulate(args, from_topic))
    if args.direct:
        show(args, args.direct, emulate(args, from_objects))


# The data


def make(args):
    """Shards of random bytes, which nothing can compress; their sizes are spread as those of pictures are."""
    scheme, _, folder = (args.source or "").partition("://")
    if scheme != "file":
        sys.exit("--make needs a --source file:///DIR")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    dice = random.Random(7)
    for shard in range(max(1, round(args.make * 1e9 / SAMPLE / SHARD))):
        with tarfile.open(folder / f"{shard:06}.tar", "w") as tar:
            for sample in range(SHARD):
                content = dice.randbytes(round(min(max(dice.gauss(1, 0.3), 0.2), 1.8) * SAMPLE))
                for extension, part in (("jpg", content), ("cls", b"%d" % dice.randrange(1000))):
                    member = tarfile.TarInfo(f"{shard:06}-{sample:04}.{extension}")
                    member.size = len(part)
                    tar.addfile(member, io.BytesIO(part))


def create(args, partitions):
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    try:
        if args.topic in admin.list_topics(timeout=10).topics:
            return
    except KafkaException as failed:
        sys.exit(f"no broker answers at {args.bootstrap}: {failed.args[0].str()}")
    if not args.source:
        sys.exit(f"there is no topic {args.topic}, and no --source to create it on")
    config = {
        "robustmq.source": args.source,
        "robustmq.source.epochs": str(args.epochs),
        "robustmq.source.shuffle": "shards",
        "robustmq.source.value": "jpg",
    }
    try:
        admin.create_topics([NewTopic(args.topic, partitions, config=config)])[args.topic].result()
    except KafkaException as refused:
        sys.exit(f"the topic is not created: {refused.args[0].str()}")


# Where batches come from: each is the sizes of its samples


def from_topic(args, rank):
    """Batches of each epoch. The consumer fetches ahead while the accelerator computes."""
    decode = {"decode": lambda message: len(message.value()), "collate": list}
    dataset = EpochDataset(args.bootstrap, args.topic, args.batch, rank=rank, world=args.accelerators, **decode)
    for epoch in range(args.epochs):
        dataset.set_epoch(epoch)
        yield acknowledged(dataset)
    dataset.close()


def acknowledged(dataset):
    for batch in dataset:
        yield batch.data
        dataset.acknowledge(batch.receipt)


def from_objects(args, rank):
    """The same from whole shards, in another order each epoch; the next one is fetched while one is used."""
    mine = listed(args)[rank :: args.accelerators]
    dice = random.Random(rank)
    orders = [dice.sample(mine, len(mine)) for _ in range(args.epochs)]
    with concurrent.futures.ThreadPoolExecutor(1) as ahead:
        shards = (shard for order in orders for shard in order)
        coming = [ahead.submit(get, args, next(shards))] if mine else []

        def sizes(order):
            for _ in order:
                shard, following = coming.pop().result(), next(shards, None)
                if following:
                    coming.append(ahead.submit(get, args, following))
                with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
                    for member in tar:
                        if member.name.endswith(".jpg"):
                            yield len(tar.extractfile(member).read())

        for order in orders:
            yield batched(sizes(order), args.batch)


def batched(samples, size):
    batch = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def listed(args):
    """The URLs of all shards, with their sizes."""
    scheme, _, rest = args.direct.partition("://")
    if scheme == "file":
        return [(str(path), path.stat().st_size) for path in sorted(pathlib.Path(rest).glob("*.tar"))]
    host, bucket, prefix = rest.split("/", 2)
    base, found, token = f"{scheme}://{host}/{bucket}", [], None
    while True:
        query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
        page = xml.etree.ElementTree.fromstring(request(args, f"{base}?{urllib.parse.urlencode(query)}"))
        for entry in page.iterfind("{*}Contents"):
            key = entry.findtext("{*}Key")
            if key.endswith(".tar"):
                found.append((f"{base}/{urllib.parse.quote(key)}", int(entry.findtext("{*}Size"))))
        token = page.findtext("{*}NextContinuationToken")
        if not token:
            return sorted(found)


def get(args, shard):
    """A shard, in ranges."""
    where, size = shard
    if "://" not in where:
        return pathlib.Path(where).read_bytes()
    ranges = (f"bytes={first}-{min(first + RANGE, size) - 1}" for first in range(0, size, RANGE))
    return b"".join(request(args, where, Range=wanted) for wanted in ranges)


def request(args, url, **headers):
    given = dict(header.split(":", 1) for header in args.header)
    with urllib.request.urlopen(urllib.request.Request(url, headers={**given, **headers}), timeout=60) as answer:
        return answer.read()


# The accelerators


def emulate(args, source):
    """A process for each. What each one's epochs were: seconds of compute, of all, samples, bytes."""
    start = multiprocessing.get_context("spawn")
    together, told = start.Barrier(args.accelerators), start.Queue()
    processes = [start.Process(target=accelerate, args=(args, source, rank, together, told)) for rank in range(args.accelerators)]
    for process in processes:
        process.start()
    results = {}
    while len(results) < len(processes):
        try:
            rank, epochs = told.get(timeout=1)
            if isinstance(epochs, str):
                for process in processes:
                    process.terminate()
                sys.exit(f"accelerator {rank} failed: {epochs}")
            results[rank] = epochs
        except queue.Empty:
            if any(process.exitcode for process in processes):
                for process in processes:
                    process.terminate()
                sys.exit("an accelerator failed")
    for process in processes:
        process.join()
    return [results[rank] for rank in range(args.accelerators)]


def accelerate(args, source, rank, together, told):
    try:
        told.put((rank, epochs_of(args, source, rank, together)))
    except (KafkaException, OSError, ValueError) as failed:
        told.put((rank, str(failed)))


def epochs_of(args, source, rank, together):
    epochs = []
    together.wait()
    began = time.monotonic()
    for batches in source(args, rank):
        compute, samples, total, ended = 0.0, 0, 0, began
        for batch in batches:
            step = time.monotonic()
            # A smaller last batch takes less.
            time.sleep(args.compute * len(batch) / args.batch)
            ended = time.monotonic()
            compute, samples, total = compute + ended - step, samples + len(batch), total + sum(batch)
        epochs.append((compute, ended - began, samples, total))
        began = ended
    return epochs


def show(args, title, accelerators):
    print(f"\n{title}\nepoch  samples    seconds   MB/s  utilisation: all  worst  each")
    for epoch in range(args.epochs):
        computes, seconds, samples, sizes = zip(*(epochs[epoch] for epochs in accelerators), strict=True)
        each = [compute / max(whole, 1e-9) for compute, whole in zip(computes, seconds, strict=True)]
        longest = max(seconds)
        one_by_one = " ".join(f"{use:.1%}" for use in each)
        whole = sum(computes) / max(sum(seconds), 1e-9)
        rate = sum(sizes) / max(longest, 1e-9) / 1e6
        print(f"{epoch:5}  {sum(samples):7}  {longest:9.2f}  {rate:5.0f}  {whole:16.1%}  {min(each):5.1%}  {one_by_one}")
    mean = statistics.mean(size / count for epochs in accelerators for _, _, count, size in epochs if count)
    print(f"a sample has {mean:,.0f} bytes on average")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
