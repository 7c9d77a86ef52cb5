"""kafka-python, all in Python. See tally.py for the commands."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import KafkaConnectionError
from kafka.structs import OffsetAndMetadata

import tally


def produce(args):
    producer = KafkaProducer(
        bootstrap_servers=args.bootstrap,
        acks="all",
        compression_type=None if args.compression == "none" else args.compression,
        max_request_size=max(1_048_576, args.size * 2),
        linger_ms=5,
    )
    sent = [
        producer.send(
            args.topic,
            key=tally.key(number),
            value=tally.value(number, args.size),
            headers=tally.headers(number, "kafka-python"),
        )
        for number in range(args.first, args.first + args.count)
    ]
    producer.flush(timeout=args.timeout)
    for future in sent:
        future.get(timeout=args.timeout)
    producer.close()
    tally.report(produced=args.count)


def take(consumer, counts, member):
    took = 0
    # Where a poll ends within the exchange that joins the group, this client neither uses what it was assigned nor joins again.
    patience = 200 if consumer.assignment() else 5000
    for records in consumer.poll(timeout_ms=patience, max_records=50).values():
        for record in records:
            counts.add(member, record.key, record.value, record.headers)
            took += 1
    return took


def read(args):
    consumer = KafkaConsumer(bootstrap_servers=args.bootstrap, enable_auto_commit=False, check_crcs=True)
    partitions = [TopicPartition(args.topic, index) for index in consumer.partitions_for_topic(args.topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    counts, deadline = tally.Tally(args.count), tally.Deadline(args.timeout)
    while not counts.complete() and not deadline.passed():
        take(consumer, counts, 0)
    consumer.close()
    tally.report(**counts.result())


class Listener(AsyncConsumerRebalanceListener):
    """Awaits its commit: in kafka-python 3 these calls come on the thread that does the input and output."""

    def __init__(self, consumer, member, ready):
        self.consumer, self.member, self.ready = consumer, member, ready

    async def on_partitions_revoked(self, revoked):
        if revoked:
            await self.consumer.commit_async()

    async def on_partitions_assigned(self, assigned):
        self.ready.assigned(self.member, assigned)


def group(args):
    counts, ready, deadline = tally.Tally(args.count), tally.Ready(), tally.Deadline(args.timeout)

    def work(member):
        consumer = KafkaConsumer(
            bootstrap_servers=args.bootstrap,
            group_id=args.group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=1_000,
        )
        consumer.subscribe([args.topic], listener=Listener(consumer, member, ready))
        taken = 0
        while not counts.complete() and not deadline.passed():
            took = take(consumer, counts, member)
            taken += took
            if took:
                counts.wait_for_others(deadline)
                if member == 1:
                    consumer.commit_async()
                else:
                    consumer.commit()
            if member == 2 and taken >= args.leave_after:
                break
        if consumer.assignment():
            consumer.commit()
        consumer.close()

    tally.run_members(work)
    observer = KafkaConsumer(bootstrap_servers=args.bootstrap, group_id=args.group, enable_auto_commit=False)
    partitions = [TopicPartition(args.topic, index) for index in observer.partitions_for_topic(args.topic)]
    committed = sum(offset_of(observer.committed(partition)) for partition in partitions)
    end = sum(observer.end_offsets(partitions).values())
    observer.close()
    tally.report(**counts.result(committed=committed, end=end))


def offset_of(committed):
    if isinstance(committed, OffsetAndMetadata):
        return committed.offset
    return committed or 0


def work(args):
    consumer = KafkaConsumer(
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
    while not ended.is_set():
        try:
            # See `take`.
            records = consumer.poll(timeout_ms=5000, max_records=50)
        except KafkaConnectionError:
            # While the broker is away, looking for the coordinator may end like this.
            continue
        for messages in records.values():
            tally.took(message.headers for message in messages)
    consumer.close()


if __name__ == "__main__":
    parsed = tally.arguments()
    {"produce": produce, "read": read, "group": group, "work": work}[parsed.command](parsed)
