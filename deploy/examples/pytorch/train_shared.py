#!/usr/bin/env python3
"""Trains on handwritten digits (scikit-learn's, 1,797 records a copy) from one partition, with 8 processes in one `$shared/` group.

    python train_shared.py --bootstrap 127.0.0.1:9092           all in step, gradients averaged
    python train_shared.py --bootstrap 127.0.0.1:9092 --kill    each by itself; one dies in the middle

Fills the topic if it is empty, then tells who was given what, and fails unless each record was acknowledged by exactly one process.
"""

import argparse
import collections
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import wait

try:
    import numpy
    import torch
    import torch.distributed as dist
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic
    from robustmq_torch import SharedDataset, equal_steps
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}: pip install torch numpy scikit-learn confluent-kafka (for CPUs alone: README.md)")

PIXELS = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True, help="the broker, HOST:PORT")
    parser.add_argument("--topic", default="digits")
    parser.add_argument("--group", default=f"$shared/digits-{int(time.time())}", help="a new one reads everything")
    parser.add_argument("--copies", type=int, default=10, help="of the data, when the topic is filled")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0, help="of each process' DataLoader")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--idle", type=float, default=8.0, help="seconds without a record, then it ends")
    parser.add_argument("--kill", action="store_true", help="one process kills itself between its step and its commit, in the middle")
    args = parser.parse_args()
    records = fill(args)
    print(f"{records} records in one partition of {args.topic}; {args.processes} processes in {args.group}")
    # Processes start from one that has loaded PyTorch, and that has no Kafka client.
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["torch", "robustmq_torch"])
    where = f"127.0.0.1:{free_port()}"
    ranks, loaded = [], start.Barrier(args.processes)
    for rank in range(args.processes):
        ours, theirs = start.Pipe(duplex=False)
        process = start.Process(target=train, args=(rank, args, records, where, loaded, theirs))
        process.start()
        theirs.close()
        ranks.append((process, ours))
    sys.exit(report(args, records, watch(args, ranks)))


def fill(args):
    """Writes the digits if the topic is empty; says how many records it has. Key: number; value: label and pixels, a byte each."""
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    if args.topic not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(args.topic, 1)])[args.topic].result()
    end = end_of(args)
    if end == 0:
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as missing:
            sys.exit(f"{missing}: pip install scikit-learn")

        digits = load_digits()
        rows = numpy.column_stack([digits.target, digits.data]).astype(numpy.uint8)
        producer = Producer({"bootstrap.servers": args.bootstrap, "enable.idempotence": True})
        for number, row in enumerate(numpy.tile(rows, (args.copies, 1))):
            producer.produce(args.topic, key=str(number), value=row.tobytes())
            producer.poll(0)
        if producer.flush(30):
            sys.exit("the broker did not take all records")
        end = end_of(args)
    return end


def end_of(args):
    consumer = Consumer({"bootstrap.servers": args.bootstrap, "group.id": "unused"})
    _, end = consumer.get_watermark_offsets(TopicPartition(args.topic, 0), timeout=10)
    consumer.close()
    return end


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# One process


def decode(message):
    row = numpy.frombuffer(message.value(), dtype=numpy.uint8)
    return int(message.key()), row[1:].astype(numpy.float32) / 16, int(row[0])


def train(rank, args, records, where, loaded, tell):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    alone = args.kill
    if not alone:
        dist.init_process_group("gloo", init_method=f"tcp://{where}", rank=rank, world_size=args.processes)
    hidden = 64
    model = torch.nn.Sequential(torch.nn.Linear(PIXELS, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = float("nan")
    loaded.wait()
    with SharedDataset(args.bootstrap, args.topic, args.group, args.batch, decode=decode, idle_seconds=args.idle) as dataset:
        loader = DataLoader(dataset, batch_size=None, num_workers=args.workers)
        for batch in loader if alone else equal_steps(loader):
            loss = step(model, optimiser, batch, alone)
            if batch is None:
                tell.send(("step", None))
                continue
            numbers = batch.data[0].tolist()
            tell.send(("trained", numbers))
            if args.kill and rank == 0 and dataset.records >= records / args.processes / 4:
                os.kill(os.getpid(), signal.SIGKILL)
            if dataset.acknowledge(batch.receipt):
                tell.send(("acknowledged", numbers))
        tell.send(("ended", (loss, dataset.state_dict())))
    if not alone:
        dist.destroy_process_group()


def step(model, optimiser, batch, alone):
    """One step on the batches of all ranks together; a rank without one adds nothing."""
    optimiser.zero_grad()
    count = 0 if batch is None else len(batch.data[0])
    if count:
        _, pixels, labels = batch.data
        loss = cross_entropy(model(pixels), labels, reduction="sum")
        loss.backward()
    totals = [torch.tensor([float(count), loss.item() if count else 0.0])]
    totals += [weight.grad if count else torch.zeros_like(weight) for weight in model.parameters()]
    if not alone:
        for total in totals:
            dist.all_reduce(total)
    for weight, total in zip(model.parameters(), totals[1:], strict=True):
        weight.grad = total / totals[0][0]
    optimiser.step()
    return (totals[0][1] / totals[0][0]).item()


# What came of it


class Watched:
    """What the processes told."""

    def __init__(self, ranks):
        self.steps = [0] * ranks
        self.trained = [collections.Counter() for _ in range(ranks)]
        self.acknowledged = [collections.Counter() for _ in range(ranks)]
        self.losses = []
        self.first = self.last = None


def watch(args, ranks):
    seen = Watched(len(ranks))
    told = {ours: rank for rank, (_, ours) in enumerate(ranks)}
    while told:
        for ours in wait(list(told)):
            rank = told[ours]
            try:
                what, value = ours.recv()
            except EOFError:
                del told[ours]
                continue
            if what == "ended":
                seen.losses.append(value[0])
                continue
            seen.last = time.monotonic()
            seen.first = seen.first or seen.last
            if what == "acknowledged":
                seen.acknowledged[rank].update(value)
            else:
                seen.steps[rank] += 1
                seen.trained[rank].update(value or [])
    for rank, (process, _) in enumerate(ranks):
        process.join()
        if args.kill and rank == 0 and process.exitcode == 0:
            sys.exit("rank 0 was not killed in the middle: the others were faster, and left it too few records; take more --copies")
        if process.exitcode != (-signal.SIGKILL if args.kill and rank == 0 else 0):
            sys.exit(f"rank {rank} failed")
    return seen


def report(args, records, seen):
    for rank, steps in enumerate(seen.steps):
        note = "  killed" if args.kill and rank == 0 else ""
        print(f"rank {rank}  {steps:5} steps  {seen.acknowledged[rank].total():6} records acknowledged{note}")
    times = sum(seen.acknowledged, collections.Counter())
    if args.kill:
        left = set(seen.trained[0]) - set(seen.acknowledged[0])
        counts = {rank: len(left & set(acknowledged)) for rank, acknowledged in enumerate(seen.acknowledged)}
        to = ", ".join(f"rank {rank}: {count}" for rank, count in counts.items() if count)
        print(f"rank 0 had trained {len(left)} records that it did not acknowledge; they went to {to}")
    took = seen.last - seen.first
    print(f"{records / took:.0f} records/s from the first step to the last ({took:.1f} s); loss of the last step {seen.losses[-1]:.3f}")
    missing, repeated = records - len(times), sum(1 for count in times.values() if count > 1)
    print(f"acknowledged by exactly one process: {len(times) - repeated} of {records}; by none: {missing}; by several: {repeated}")
    return 1 if missing or repeated else 0


if __name__ == "__main__":
    main()
