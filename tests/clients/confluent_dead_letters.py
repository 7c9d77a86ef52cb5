"""confluent-kafka: a group that gives up what nobody acknowledges. Prints what came into the dead-letter topic as one JSON object."""

import argparse
import json
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

RECORDS = 5
GROUP, TOPIC, LETTERS = "$shared/strict", "orders", "lost"

parser = argparse.ArgumentParser()
parser.add_argument("--bootstrap", required=True)
bootstrap = parser.parse_args().bootstrap
deadline = time.monotonic() + 60


def consumer(group, **more):
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, **more})


def poll(found, of, count):
    while len(found) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(found)} of {count} records")
        message = of.poll(0.2)
        if message is not None and message.error():
            raise KafkaException(message.error())
        if message is not None:
            found.append(message)
    return found


def set_group(name, value):
    return ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)


admin = AdminClient({"bootstrap.servers": bootstrap})
admin.create_topics([NewTopic(TOPIC, num_partitions=1)])[TOPIC].result(timeout=20)
entries = [
    set_group("robustmq.shared.delivery.limit", "2"),
    set_group("robustmq.shared.dead.letter.topic", LETTERS),
]
resource = ConfigResource(ResourceType.GROUP, GROUP, incremental_configs=entries)
admin.incremental_alter_configs([resource])[resource].result(timeout=20)

producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 50})
for number in range(RECORDS):
    producer.produce(TOPIC, key=f"k{number}", value=f"v{number}", headers=[("own", str(number).encode())])
producer.flush(20)

# Two members are given all of it, and leave without a word about it.
for _ in range(2):
    member = consumer(GROUP)
    member.subscribe([TOPIC])
    poll([], member, RECORDS)
    member.close()
# A third one is given what came later, and nothing else.
third = consumer(GROUP)
third.subscribe([TOPIC])
producer.produce(TOPIC, value="last")
producer.flush(20)
given = [message.value().decode() for message in poll([], third, 1)]
third.commit(asynchronous=False)
third.close()

reader = consumer("reader")
reader.assign([TopicPartition(LETTERS, 0, OFFSET_BEGINNING)])
letters = [
    {
        "key": letter.key().decode(),
        "value": letter.value().decode(),
        "headers": {name: value.decode() for name, value in letter.headers()},
    }
    for letter in poll([], reader, RECORDS)
]
reader.close()
print(json.dumps({"given": given, "letters": letters}))
