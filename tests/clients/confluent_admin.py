"""confluent-kafka's admin client: one walk through a topic's and a group's life. Prints what it saw as one JSON object."""

import argparse
import json

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

parser = argparse.ArgumentParser()
parser.add_argument("--bootstrap", required=True)
parser.add_argument("--topic", required=True)
bootstrap, topic = vars(parser.parse_args()).values()
admin = AdminClient({"bootstrap.servers": bootstrap})
seen = {}


def result(futures):
    return next(iter(futures.values())).result(timeout=20)


def error_of(action):
    try:
        action()
    except KafkaException as error:
        return error.args[0].name()
    return None


def partitions():
    return len(admin.list_topics(topic, timeout=10).topics[topic].partitions)


cluster = admin.describe_cluster().result(timeout=20)
seen["cluster"] = {"nodes": len(cluster.nodes), "id": bool(cluster.cluster_id)}

new = NewTopic(topic, num_partitions=2, replication_factor=1, config={"retention.ms": "3600000"})
result(admin.create_topics([new]))
seen["partitions"] = partitions()
seen["created_again"] = error_of(lambda: result(admin.create_topics([new])))
seen["bad_name"] = error_of(lambda: result(admin.create_topics([NewTopic("not/legal", num_partitions=1)])))
seen["bad_config"] = error_of(
    lambda: result(admin.create_topics([NewTopic(topic + "-bad", num_partitions=1, config={"retention.ms": "soon"})]))
)

resource = ConfigResource(ResourceType.TOPIC, topic)
config = result(admin.describe_configs([resource]))
seen["retention"] = config["retention.ms"].value
seen["mode"] = config["robustmq.storage.mode"].value

# AlterConfigs replaces: what is not named is the default again.
result(admin.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config={"retention.bytes": "5000"})]))
config = result(admin.describe_configs([resource]))
seen["replaced"] = [config["retention.bytes"].value, config["retention.ms"].value]
seen["broker_config"] = error_of(
    lambda: result(admin.alter_configs([ConfigResource(ResourceType.BROKER, "1", set_config={"num.partitions": "2"})]))
)

result(admin.create_partitions([NewPartitions(topic, 4)]))
seen["partitions_after"] = partitions()
seen["fewer_partitions"] = error_of(lambda: result(admin.create_partitions([NewPartitions(topic, 1)])))

producer = Producer({"bootstrap.servers": bootstrap})
for number in range(100):
    producer.produce(topic, value=str(number).encode(), partition=number % 4)
producer.flush(20)

group = topic + "-group"
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe([topic])
taken = 0
while taken < 100:
    taken += len([message for message in consumer.consume(100, timeout=1) if not message.error()])
consumer.commit(offsets=[TopicPartition(topic, index, 10) for index in range(4)], asynchronous=False)

description = result(admin.describe_consumer_groups([group]))
seen["group"] = {"state": description.state.name, "members": len(description.members)}
seen["group_listed"] = group in [found.group_id for found in admin.list_consumer_groups().result(timeout=20).valid]
consumer.close()

everything = [TopicPartition(topic, index) for index in range(4)]
found = result(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, everything)]))
committed = sum(partition.offset for partition in found.topic_partitions)
ends = admin.list_offsets({partition: OffsetSpec.latest() for partition in everything})
end = sum(future.result(timeout=20).offset for future in ends.values())
seen["lag"] = end - committed

result(admin.delete_topics([topic]))
seen["deleted"] = topic not in admin.list_topics(timeout=10).topics
seen["deleted_again"] = error_of(lambda: result(admin.delete_topics([topic])))
print(json.dumps(seen))
