"""aiokafka, on asyncio. See tally.py for the commands."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError

import tally


async def produce(args):
    producer = AIOKafkaProducer(
        bootstrap_servers=args.bootstrap,
        enable_idempotence=True,
        compression_type=None if args.compression == "none" else args.compression,
        max_request_size=max(1_048_576, args.size * 2),
        linger_ms=5,
    )
    await producer.start()
    try:
        sent = [
            await producer.send(
                args.topic,
                key=tally.key(number),
                value=tally.value(number, args.size),
                headers=tally.headers(number, "aiokafka"),
            )
            for number in range(args.first, args.first + args.count)
        ]
        await asyncio.wait_for(asyncio.gather(*sent), args.timeout)
    finally:
        await producer.stop()
    tally.report(produced=args.count)


async def take(consumer, counts, member):
    took = 0
    for records in (await consumer.getmany(timeout_ms=200, max_records=50)).values():
        for record in records:
            counts.add(member, record.key, record.value, record.headers)
            took += 1
    return took


async def partitions_of(consumer, topic):
    await consumer._client._wait_on_metadata(topic)  # noqa: SLF001: there is no public way to ask for one topic
    return [TopicPartition(topic, index) for index in consumer.partitions_for_topic(topic)]


async def read(args):
    consumer = AIOKafkaConsumer(bootstrap_servers=args.bootstrap, enable_auto_commit=False, check_crcs=True)
    await consumer.start()
    counts, deadline = tally.Tally(args.count), tally.Deadline(args.timeout)
    try:
        partitions = await partitions_of(consumer, args.topic)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while not counts.complete() and not deadline.passed():
            await take(consumer, counts, 0)
    finally:
        await consumer.stop()
    tally.report(**counts.result())


class Listener(ConsumerRebalanceListener):
    def __init__(self, consumer, member, ready):
        self.consumer, self.member, self.ready = consumer, member, ready

    async def on_partitions_revoked(self, revoked):
        if revoked:
            await self.consumer.commit()

    async def on_partitions_assigned(self, assigned):
        self.ready.assigned(self.member, assigned)


async def member_work(args, member, counts, ready, deadline):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=1_000,
    )
    consumer.subscribe([args.topic], listener=Listener(consumer, member, ready))
    await consumer.start()
    taken = 0
    try:
        while not counts.complete() and not deadline.passed():
            took = await take(consumer, counts, member)
            taken += took
            if took:
                try:
                    await consumer.commit()
                except CommitFailedError:
                    # A rebalance came first; the listener committed when it began.
                    pass
            if member == 2 and taken >= args.leave_after:
                break
        if consumer.assignment():
            await consumer.commit()
    finally:
        await consumer.stop()


async def group(args):
    counts, ready, deadline = tally.Tally(args.count), tally.Ready(), tally.Deadline(args.timeout)
    await asyncio.gather(*(member_work(args, member, counts, ready, deadline) for member in range(tally.MEMBERS)))
    observer = AIOKafkaConsumer(bootstrap_servers=args.bootstrap, group_id=args.group, enable_auto_commit=False)
    await observer.start()
    try:
        partitions = await partitions_of(observer, args.topic)
        committed = sum([await observer.committed(partition) or 0 for partition in partitions])
        end = sum((await observer.end_offsets(partitions)).values())
    finally:
        await observer.stop()
    tally.report(**counts.result(committed=committed, end=end))


async def work(args):
    consumer = AIOKafkaConsumer(
        args.topic,
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        client_id="worker",
        auto_offset_reset="earliest",
        auto_commit_interval_ms=500,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=1_000,
    )
    ended = tally.ended()
    await consumer.start()
    try:
        while not ended.is_set():
            for messages in (await consumer.getmany(timeout_ms=200, max_records=50)).values():
                tally.took(message.headers for message in messages)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    parsed = tally.arguments()
    asyncio.run({"produce": produce, "read": read, "group": group, "work": work}[parsed.command](parsed))
