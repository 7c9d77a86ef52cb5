"""confluent-kafka on many topics: creates, lists, writes to or deletes them. Prints what it took as one JSON object."""

import argparse
import json
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["create", "list", "produce", "delete"])
parser.add_argument("--bootstrap", required=True)
parser.add_argument("--prefix", required=True)
parser.add_argument("--count", type=int, required=True, help="topics that there are")
parser.add_argument("--per-request", type=int, default=5000, help="topics of one request")
parser.add_argument("--active", type=int, default=10, help="topics that are written to, evenly spread")
parser.add_argument("--records", type=int, default=5000, help="records in all")
parser.add_argument("--rate", type=int, default=2000, help="records a second")
arguments = parser.parse_args()
bootstrap = {"bootstrap.servers": arguments.bootstrap}


def name(number):
    return f"{arguments.prefix}-{number:07}"


def requests():
    for start in range(0, arguments.count, arguments.per_request):
        yield [name(number) for number in range(start, min(start + arguments.per_request, arguments.count))]


def settle(futures):
    for future in futures.values():
        future.result()


def create(admin):
    for names in requests():
        new = [NewTopic(topic, num_partitions=1, replication_factor=1) for topic in names]
        settle(admin.create_topics(new, request_timeout=120, operation_timeout=120))
    return {}


def delete(admin):
    for names in requests():
        settle(admin.delete_topics(names, request_timeout=120, operation_timeout=120))
    return {}


def listed(admin):
    topics = admin.list_topics(timeout=120).topics
    return {"listed": sum(topic.startswith(arguments.prefix) for topic in topics)}


def produce():
    producer = Producer({**bootstrap, "linger.ms": 0, "acks": "all"})
    topics = [name(number * arguments.count // arguments.active) for number in range(arguments.active)]
    taken, failed = [], []

    def delivered(sent):
        def note(error, _):
            failed.append(str(error)) if error else taken.append(time.perf_counter() - sent)

        return note

    def write(count, rate):
        started = time.perf_counter()
        for number in range(count):
            due = started + number / rate
            producer.poll(max(0, due - time.perf_counter()))
            producer.produce(topics[number % len(topics)], value=b"x" * 100, on_delivery=delivered(time.perf_counter()))
        producer.flush(120)

    # The client first has to learn where each topic is.
    write(arguments.active, arguments.rate)
    taken.clear()
    write(arguments.records, arguments.rate)
    if failed or len(taken) != arguments.records:
        raise SystemExit(f"{len(failed)} records were not taken: {failed[:1]}")
    taken.sort()
    return {"p50_ms": taken[len(taken) // 2] * 1e3, "p99_ms": taken[len(taken) * 99 // 100] * 1e3}


verbs = {"create": create, "list": listed, "delete": delete}
admin = AdminClient({**bootstrap, "socket.timeout.ms": 120000})
# Connecting is not what is measured.
admin.describe_cluster().result()
started = time.perf_counter()
seen = produce() if arguments.verb == "produce" else verbs[arguments.verb](admin)
print(json.dumps({"seconds": time.perf_counter() - started, **seen}))
