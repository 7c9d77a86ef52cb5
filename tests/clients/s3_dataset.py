"""A dataset in S3 as others have made it, by boto3 and Python's own tar and gzip, and what a consumer is given of it.

S3 is found by the AWS names in the environment. Commands, all reporting one JSON object on standard output:

    put                                     the bucket, and the datasets below `train/` and `later/`
    replace KEY                             puts other bytes of the same length there
    restore KEY                             puts there what was there first
    delete KEY
    create --topic T --source URL           as a Kafka client creates it: {"error": what the broker says, or null}
    read --topic T --prefix P [--without KEY]
                                            everything but the records of KEY, each record checked
"""

import argparse
import concurrent.futures
import gzip
import hashlib
import io
import json
import random
import tarfile
import time

BUCKET = "data"
# A part of a multipart upload has at least so many bytes, but for the last.
PART_BYTES = 5 << 20

# Each is what some client or server is known to have decoded once too often, or not at all.
NAMES = [
    "a space.bin",
    "a+plus.bin",
    "a%percent.bin",
    "a%20code.bin",
    "a%2Fcoded slash.bin",
    "an & < > ' \" escape.bin",
    "a=b&c?d#e;f,g:h@i!j$k.bin",
    "brackets [1] {2} (3) *.bin",
    "back\\slash ^ ` | ~.bin",
    "über/straße-日本語-🚀.bin",
    "u\u0308ber decomposed.bin",
    " at both ends ",
    "folder.with.dots/x..y/three...bin",
]


class Sample:
    """A record that has to come: its object, its key, its value, its other parts."""

    def __init__(self, key, value, parts=()):
        self.identity = (key, hashlib.sha256(value).hexdigest(), tuple(sorted(parts)))


class Made:
    """An object and what is in it."""

    def __init__(self, content, samples):
        self.content, self.samples = content, samples


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def whole(name, size, seed=""):
    content = noise(name + seed, size)
    return Made(content, [Sample(name, content)])


def tar(name, seed=""):
    packed, samples = io.BytesIO(), []
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(20):
            key = f"{name.removesuffix('.tar')}-größe-{number:03}"
            image, label = noise(f"{key}{seed}", 3_000), str(number).encode()
            for extension, part in [("cls", label), ("jpg", image)]:
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(part)
                archive.addfile(member, io.BytesIO(part))
            samples.append(Sample(key, image, [("cls", label)]))
    return Made(packed.getvalue(), samples)


def lines(name):
    made = [json.dumps({"of": name, "line": n, "text": "日本" * (n % 50)}) for n in range(500)]
    samples = [Sample(None, line.encode()) for line in made]
    return Made(gzip.compress("".join(line + "\n" for line in made).encode(), mtime=0), samples)


def made(key, seed=""):
    """The object with that key; another one of the same length with another seed."""
    name = key.split("/", 1)[1]
    if name.endswith(".tar"):
        return tar(name, seed)
    if name.endswith(".jsonl.gz"):
        return lines(name)
    if name.endswith("/"):
        # As consoles and file browsers make folders.
        return Made(b"", [])
    sizes = {"empty.bin": 0, "parts.bin": PART_BYTES + 100_000}
    return whole(name, sizes.get(name, 1_000), seed)


def keys(prefix):
    if prefix == "later/":
        return [f"later/shard-{number}.tar" for number in range(6)]
    names = [*NAMES, "empty.bin", "parts.bin", "lines.jsonl.gz", "", "many/"]
    names += [f"shard-{number}.tar" for number in range(4)]
    names += [f"many/{number:03}.bin" for number in range(300)]
    return [f"train/{name}" for name in names]


def s3():
    # Only those that ask for S3 pay for it.
    import boto3
    from botocore.config import Config

    config = Config(region_name="us-east-1", max_pool_connections=8, retries={"total_max_attempts": 1})
    return boto3.client("s3", config=config)


def put(client, key, seed=""):
    content = made(key, seed).content
    if len(content) <= PART_BYTES:
        return client.put_object(Bucket=BUCKET, Key=key, Body=content)["ETag"]
    place = {"Bucket": BUCKET, "Key": key}
    place["UploadId"] = client.create_multipart_upload(**place)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(content), PART_BYTES), 1):
        part = content[start : start + PART_BYTES]
        answer = client.upload_part(**place, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    done = client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    return done["ETag"]


def put_all(_args):
    client = s3()
    client.create_bucket(Bucket=BUCKET)
    all_keys = keys("train/") + keys("later/")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tags = dict(zip(all_keys, pool.map(lambda key: put(client, key), all_keys)))
    page = client.list_objects_v2(Bucket=BUCKET)["KeyCount"]
    return {"objects": len(keys("train/")), "page": page, "parts": tags["train/parts.bin"]}


def create(args):
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    config = {"robustmq.source": args.source}
    topic = NewTopic(args.topic, num_partitions=args.partitions, config=config)
    try:
        admin.create_topics([topic])[args.topic].result()
    except KafkaException as error:
        return {"error": error.args[0].str()}
    return {"error": None}


def expected(prefix, partitions, without):
    """Of each partition the records that have to come, in order: objects go to partitions in turn, in the order of their names."""
    order = sorted((key for key in keys(prefix) if not key.endswith("/")), key=str.encode)
    for partition in range(partitions):
        wanted = []
        for key in order[partition::partitions]:
            name = key[len(prefix) :]
            if key not in without:
                wanted += [(name, *sample.identity) for sample in made(key).samples]
        yield wanted


def identity(message, headers):
    about = {"robustmq.epoch", "robustmq.object", "robustmq.value"}
    parts = tuple(sorted(part for part in headers.items() if part[0] not in about))
    key = message.key() and message.key().decode()
    name = headers["robustmq.object"].decode()
    return name, key, hashlib.sha256(message.value()).hexdigest(), parts


class Partition:
    """What has to come of one, and what has come."""

    def __init__(self, wanted):
        self.wanted, self.came, self.lost, self.wrong = wanted, 0, {}, []

    def missing(self):
        return len(self.wanted) - self.came

    def take(self, message):
        due = self.wanted[self.came] if self.missing() > 0 else None
        headers = dict(message.headers())
        if message.value() is None and "robustmq.error" in headers:
            # It says of which object it is, and no more.
            name, why = headers["robustmq.object"].decode(), headers["robustmq.error"].decode()
            self.lost[name] = (self.lost.get(name, (0, why))[0] + 1, why)
            is_due = due is not None and due[0] == name
        else:
            is_due = identity(message, headers) == due
        if not is_due or message.offset() != self.came:
            self.wrong.append(f"{due} was due at {self.came}, {headers} came at {message.offset()}")
        self.came += 1


def read(args):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    settings = {"group.id": "unused", "enable.auto.commit": False, "check.crcs": True}
    consumer = Consumer({"bootstrap.servers": args.bootstrap, **settings})
    count = len(consumer.list_topics(args.topic, timeout=10).topics[args.topic].partitions)
    consumer.assign([TopicPartition(args.topic, index, OFFSET_BEGINNING) for index in range(count)])
    partitions = [Partition(wanted) for wanted in expected(args.prefix, count, args.without)]
    deadline = time.monotonic() + args.timeout
    while any(partition.missing() > 0 for partition in partitions) and time.monotonic() < deadline:
        for message in consumer.consume(num_messages=500, timeout=0.2):
            if message.error():
                raise KafkaException(message.error())
            partitions[message.partition()].take(message)
    # Of what is not due nothing may have been published either.
    ends = [consumer.get_watermark_offsets(TopicPartition(args.topic, index), timeout=10)[1] for index in range(count)]
    consumer.close()
    lost = {name: how for partition in partitions for name, how in partition.lost.items()}
    wrong = [text for partition in partitions for text in partition.wrong]
    return {
        "records": sum(partition.came for partition in partitions),
        "missing": sum(partition.missing() for partition in partitions),
        "more": sum(ends) - sum(len(partition.wanted) for partition in partitions),
        "wrong": wrong[:5],
        "lost": lost,
    }


def change(args):
    client = s3()
    for key in args.key:
        if args.command == "delete":
            client.delete_object(Bucket=BUCKET, Key=key)
        else:
            put(client, key, "another" if args.command == "replace" else "")
    return {}


def main():
    parser = argparse.ArgumentParser()
    commands = {"put": put_all, "create": create, "read": read}
    commands |= dict.fromkeys(["replace", "restore", "delete"], change)
    parser.add_argument("command", choices=commands)
    parser.add_argument("key", nargs="*")
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--source")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--prefix")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--timeout", type=float, default=30)
    args = parser.parse_args()
    print(json.dumps(commands[args.command](args)), flush=True)


if __name__ == "__main__":
    main()
