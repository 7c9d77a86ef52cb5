"""confluent-kafka (librdkafka). See tally.py for the commands."""

from confluent_kafka import (
    OFFSET_BEGINNING,
    AcknowledgeType,
    Consumer,
    KafkaException,
    Producer,
    ShareConsumer,
    TopicPartition,
)

import tally


def produce(args):
    failures = []

    def delivered(error, _message):
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": args.bootstrap,
            "enable.idempotence": True,
            "compression.type": args.compression,
            "message.max.bytes": max(1_000_000, args.size * 2),
            "linger.ms": 5,
        }
    )
    for number in range(args.first, args.first + args.count):
        while True:
            try:
                producer.produce(
                    args.topic,
                    key=tally.key(number),
                    value=tally.value(number, args.size),
                    headers=tally.headers(number, "confluent-kafka"),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(args.timeout)
    if failures or left:
        raise SystemExit(f"{len(failures)} failed, {left} not sent: {failures[:1]}")
    tally.report(produced=args.count)


def partitions_of(consumer, topic):
    metadata = consumer.list_topics(topic, timeout=10)
    return [TopicPartition(topic, index) for index in metadata.topics[topic].partitions]


def read(args):
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "check.crcs": True,
            "fetch.message.max.bytes": max(1_048_576, args.size * 2),
        }
    )
    partitions = partitions_of(consumer, args.topic)
    for partition in partitions:
        partition.offset = OFFSET_BEGINNING
    consumer.assign(partitions)
    counts, deadline = tally.Tally(args.count), tally.Deadline(args.timeout)
    while not counts.complete() and not deadline.passed():
        take(consumer, counts, 0)
    consumer.close()
    tally.report(**counts.result())


def take(consumer, counts, member):
    messages = consumer.consume(num_messages=50, timeout=0.2)
    for message in messages:
        if message.error():
            raise KafkaException(message.error())
        counts.add(member, message.key(), message.value(), message.headers())
    return len(messages)


def group(args):
    counts, ready, deadline = tally.Tally(args.count), tally.Ready(), tally.Deadline(args.timeout)

    def work(member):
        consumer = Consumer(
            {
                "bootstrap.servers": args.bootstrap,
                "group.id": args.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": True,
                "group.protocol": args.protocol,
                # In the consumer group protocol (KIP-848) the broker says how long it is.
                **({"session.timeout.ms": 10_000} if args.protocol == "classic" else {}),
            }
        )

        def commit_quietly():
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:
                if error.args[0].name() != "_NO_OFFSET":
                    raise

        def revoked(_consumer, _partitions):
            commit_quietly()

        def assigned(_consumer, partitions):
            ready.assigned(member, partitions)

        consumer.subscribe([args.topic], on_assign=assigned, on_revoke=revoked)
        taken = 0
        while not counts.complete() and not deadline.passed():
            took = take(consumer, counts, member)
            taken += took
            if took:
                counts.wait_for_others(deadline)
                consumer.commit(asynchronous=member == 1)
            if member == 2 and taken >= args.leave_after:
                break
        commit_quietly()
        consumer.close()

    tally.run_members(work)
    observer = Consumer({"bootstrap.servers": args.bootstrap, "group.id": args.group})
    partitions = partitions_of(observer, args.topic)
    committed = sum(max(0, found.offset) for found in observer.committed(partitions, timeout=10))
    end = sum(observer.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions)
    observer.close()
    tally.report(**counts.result(committed=committed, end=end))


def work(args):
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": args.group,
            "client.id": "worker",
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": 500,
            "session.timeout.ms": 10_000,
        }
    )
    consumer.subscribe([args.topic])
    ended = tally.ended()
    while not ended.is_set():
        messages = consumer.consume(num_messages=50, timeout=0.2)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        tally.took(message.headers() for message in messages)
    consumer.close()


def share(args):
    consumer = ShareConsumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": args.group,
            "client.id": "worker",
            "share.acknowledgement.mode": "explicit",
        }
    )
    consumer.subscribe([args.topic])
    ended = tally.ended()
    while not ended.is_set():
        accepted, rejected = [], []
        for message in consumer.poll(timeout=0.2):
            if message.error():
                raise KafkaException(message.error())
            number = int(dict(message.headers())["number"])
            verdict = tally.verdict(number, message.delivery_count() > 1)
            if verdict == "release":
                consumer.acknowledge(message, AcknowledgeType.RELEASE)
            elif verdict == "reject":
                consumer.acknowledge(message, AcknowledgeType.REJECT)
                rejected.append(number)
            else:
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
                accepted.append(number)
        # Said first: whoever is killed in between has at least not kept it to itself.
        if accepted or rejected:
            tally.report(took=accepted, rejected=rejected)
        for error in consumer.commit_sync().values():
            if error is not None:
                raise KafkaException(error)
    consumer.close()


if __name__ == "__main__":
    parsed = tally.arguments()
    commands = {"produce": produce, "read": read, "group": group, "work": work, "share": share}
    commands[parsed.command](parsed)
