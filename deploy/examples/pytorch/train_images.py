#!/usr/bin/env python3
"""Classifies images that lie as WebDataset shards in a directory, served as a Kafka topic, in shuffled epochs.

    python train_images.py --bootstrap 127.0.0.1:9092                      scikit-learn's digits as PNG files, a small CNN
    python train_images.py --bootstrap 127.0.0.1:9092 --stop-after 60      again, stopped in mid-epoch and resumed by another process
    python train_images.py --bootstrap 127.0.0.1:9092 --light              drawn digits, softmax regression: without PyTorch and the rest

Writes the shards and creates the topic where they are missing. Fails unless each epoch had each image exactly once, and unless who was
stopped and resumed was given the same images in the same order, and has the same weights, as who was not.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import importlib.util
import io
import json
import math
import multiprocessing
import os
import pathlib
import pickle
import random
import struct
import sys
import tarfile
import tempfile
import time
import zlib

try:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic
    from robustmq_torch import EpochDataset
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}: pip install confluent-kafka")

SIDE = 8  # pixels
TRAINED = 1500  # images; the rest of the digits tell how good the model is


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True, help="the broker, HOST:PORT")
    parser.add_argument("--topic", default=None, help="images, or light-images")
    parser.add_argument("--directory", type=pathlib.Path, help="of the shards, as the broker sees it too; data/TOPIC beside this program")
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--shard", type=int, default=100, help="images in a shard")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="also trains with a stop there, and resumes from the checkpoint")
    parser.add_argument("--light", action="store_true", help="without PyTorch, scikit-learn and Pillow")
    args = parser.parse_args()
    args.topic = args.topic or ("light-images" if args.light else "images")
    # They are to last as long as the topic does, so it is no temporary directory.
    args.directory = (args.directory or pathlib.Path(__file__).parent / "data" / args.topic).resolve()
    if not args.light:
        check_modules()
    images = drawn() if args.light else digits()
    names = {name(number) for number in range(TRAINED)}
    fill(args, images[:TRAINED])
    whole = in_a_process(train, args, None, None)
    told = list(report(args, whole, images[TRAINED:], names))
    if args.stop_after:
        told.append(resume(args, whole, names))
    sys.exit(0 if all(told) else 1)


def check_modules():
    """What is missing would be told by a process of its own, one after the other."""
    missing = [module for module in ("torch", "sklearn", "PIL") if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(
            f"there is no {', '.join(missing)}: pip install torch scikit-learn pillow confluent-kafka (for CPUs alone: README.md); "
            "--light does without"
        )


def in_a_process(call, *arguments):
    """So that who resumes has nothing but the checkpoint."""
    start = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=start) as process:
        return process.submit(call, *arguments).result()


# The data


def name(number):
    return f"{number:06}"


def digits():
    """Images and what they show, in the order of scikit-learn."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return [([int(pixel * 15.9375) for pixel in pixels], int(label)) for pixels, label in zip(loaded.data, loaded.target, strict=True)]


def drawn():
    """Ten patterns with noise."""
    dice = random.Random(7)
    patterns = [[dice.choice((40, 215)) for _ in range(SIDE * SIDE)] for _ in range(10)]
    labels = [dice.randrange(10) for _ in range(TRAINED + 300)]
    return [([min(255, max(0, round(dice.gauss(pixel, 160)))) for pixel in patterns[label]], label) for label in labels]


def fill(args, images):
    """Writes the shards, if there are none, and creates the topic on them, if there is none."""
    args.directory.mkdir(parents=True, exist_ok=True)
    if not any(args.directory.glob("*.tar")):
        for first in range(0, len(images), args.shard):
            with tarfile.open(args.directory / f"{name(first)}.tar", "w") as shard:
                for number, (pixels, label) in enumerate(images[first : first + args.shard], first):
                    for extension, content in (("png", png(pixels, args.light)), ("cls", str(label).encode())):
                        member = tarfile.TarInfo(f"{name(number)}.{extension}")
                        member.size = len(content)
                        shard.addfile(member, io.BytesIO(content))
    labels = labels_of(min(args.directory.glob("*.tar")))
    if labels != [label for _, label in images[: len(labels)]]:
        sys.exit(f"the shards in {args.directory} are of other images: take another --directory, and another --topic")
    config = {
        "robustmq.source": f"file://{args.directory}",
        "robustmq.source.epochs": str(args.epochs),
        "robustmq.source.shuffle": "window:256",
        "robustmq.source.seed": "7",
        "robustmq.source.value": "png",
    }
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    try:
        topics = admin.list_topics(timeout=10).topics
    except KafkaException as failed:
        sys.exit(f"no broker answers at {args.bootstrap}: {failed.args[0].str()}")
    if args.topic not in topics:
        try:
            admin.create_topics([NewTopic(args.topic, args.partitions, config=config)])[args.topic].result()
        except KafkaException as refused:
            sys.exit(f"the topic is not created: {refused.args[0].str()}")
    print(f"{len(images)} images in {len(list(args.directory.glob('*.tar')))} shards; topic {args.topic}")


def labels_of(path):
    with tarfile.open(path) as shard:
        return [int(shard.extractfile(member).read()) for member in shard if member.name.endswith(".cls")]


def png(pixels, light):
    if not light:
        from PIL import Image

        content = io.BytesIO()
        Image.frombytes("L", (SIDE, SIDE), bytes(pixels)).save(content, "PNG")
        return content.getvalue()
    rows = b"".join(b"\0" + bytes(pixels[first : first + SIDE]) for first in range(0, SIDE * SIDE, SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def label_of(message):
    return int(next(value for key, value in message.headers() if key == "cls"))


def decode(message):
    import numpy
    import torch
    from PIL import Image

    pixels = numpy.array(Image.open(io.BytesIO(message.value())), dtype=numpy.float32) / 255
    return message.key().decode(), torch.from_numpy(pixels)[None], label_of(message)


def decode_light(message):
    """As `png` wrote it: one chunk of data, rows without a filter."""
    content = message.value()
    length = struct.unpack_from(">I", content, 33)[0]
    rows = zlib.decompress(content[41 : 41 + length])
    pixels = [pixel / 255 for at in range(SIDE) for pixel in rows[at * (SIDE + 1) + 1 : (at + 1) * (SIDE + 1)]]
    return message.key().decode(), pixels, label_of(message)


# The models


class Convolutions:
    def __init__(self):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        layers = torch.nn
        self.net = layers.Sequential(
            *(layers.Conv2d(1, 16, 3, padding=1), layers.ReLU(), layers.MaxPool2d(2)),
            *(layers.Conv2d(16, 32, 3, padding=1), layers.ReLU(), layers.Flatten(), layers.Linear(32 * 16, 10)),
        )
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)

    def step(self, data):
        from torch.nn.functional import cross_entropy

        keys, pixels, labels = data
        self.optimiser.zero_grad()
        cross_entropy(self.net(pixels), labels).backward()
        self.optimiser.step()
        return list(keys)

    def right(self, images):
        import torch

        pixels = torch.tensor([image for image, _ in images], dtype=torch.float32).reshape(-1, 1, SIDE, SIDE) / 255
        with torch.no_grad():
            found = self.net(pixels).argmax(1)
        return sum(int(one) == label for one, (_, label) in zip(found, images, strict=True))

    def state(self):
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state):
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])

    def weights(self):
        return b"".join(weight.detach().numpy().tobytes() for weight in self.net.parameters())


class Softmax:
    """A regression, in plain Python."""

    def __init__(self):
        self.rows = [[0.0] * (SIDE * SIDE + 1) for _ in range(10)]

    def chances(self, pixels):
        scores = [sum(map(float.__mul__, row, pixels)) + row[-1] for row in self.rows]
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    def step(self, data):
        for _, pixels, label in data:
            for digit, chance in enumerate(self.chances(pixels)):
                pull = 0.02 * ((digit == label) - chance)
                self.rows[digit] = [weight + pull * pixel for weight, pixel in zip(self.rows[digit], [*pixels, 1.0], strict=True)]
        return [key for key, _, _ in data]

    def right(self, images):
        def guess(pixels):
            chances = self.chances([pixel / 255 for pixel in pixels])
            return chances.index(max(chances))

        return sum(guess(pixels) == label for pixels, label in images)

    def state(self):
        return self.rows

    def load(self, state):
        self.rows = state

    def weights(self):
        return json.dumps(self.rows).encode()


# Training

Trained = collections.namedtuple("Trained", "keys states seconds weights left_out")


def train(args, checkpoint, stop_after):
    """From a checkpoint, if it is there; until it has made so many steps, and then writes one. What it trained on in each epoch."""
    model = Softmax() if args.light else Convolutions()
    decoder, more = (decode_light, {"collate": list}) if args.light else (decode, {})
    keys, states, seconds, steps = collections.defaultdict(list), {}, {}, 0
    with EpochDataset(args.bootstrap, args.topic, args.batch, decode=decoder, **more) as dataset:
        if checkpoint and checkpoint.exists():
            saved = pickle.loads(checkpoint.read_bytes())
            model.load(saved["model"])
            dataset.load_state_dict(saved["data"])
        for epoch in range(dataset.epoch, args.epochs):
            dataset.set_epoch(epoch)
            began = time.monotonic()
            for batch in batches(args, dataset):
                keys[epoch] += model.step(batch.data)
                dataset.acknowledge(batch.receipt)
                steps += 1
                if steps == stop_after:
                    checkpoint.write_bytes(pickle.dumps({"model": model.state(), "data": dataset.state_dict()}))
                    # As who is killed: with batches in hand that were loaded and not trained.
                    return Trained(dict(keys), {}, {}, model.weights(), dataset.left_out)
            states[epoch], seconds[epoch] = pickle.dumps(model.state()), time.monotonic() - began
        return Trained(dict(keys), states, seconds, model.weights(), dataset.left_out)


def batches(args, dataset):
    if args.light:
        return dataset
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=None, num_workers=args.workers)


# What came of it


def report(args, whole, unseen, names):
    """Whether each epoch is whole, in an order of its own."""
    model = Softmax() if args.light else Convolutions()
    for epoch in range(args.epochs):
        keys = whole.keys.get(epoch, [])
        model.load(pickle.loads(whole.states[epoch]))
        complete = len(keys) == len(names) and set(keys) == names
        accuracy = model.right(unseen) / len(unseen)
        rate = len(keys) / whole.seconds[epoch]
        each = "each once" if complete else f"NOT each once: {len(set(keys) & names)} of {len(names)}"
        print(f"epoch {epoch}  {len(keys)} images, {each}; {accuracy:.1%} of {len(unseen)} others right; {rate:.0f} images/s")
        yield complete
    orders = {tuple(keys) for keys in whole.keys.values()}
    print(f"orders: {len(orders)} in {args.epochs} epochs; left out as damaged: {whole.left_out}")
    yield len(orders) == args.epochs and whole.left_out == 0


def resume(args, whole, names):
    """Whether who stops and is resumed trains on the same."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder) / "checkpoint"
        first = in_a_process(train, args, checkpoint, args.stop_after)
        if not checkpoint.exists():
            print(f"--stop-after {args.stop_after}: all {args.epochs} epochs have fewer steps")
            return False
        at = json.dumps(pickle.loads(checkpoint.read_bytes())["data"])
        second = in_a_process(train, args, checkpoint, None)
    print(f"stopped after {args.stop_after} steps, resumed from {at}")
    both = {epoch: first.keys.get(epoch, []) + second.keys.get(epoch, []) for epoch in whole.keys}
    complete = all(len(keys) == len(names) and set(keys) == names for keys in both.values())
    same = both == whole.keys, second.weights == whole.weights
    digest = hashlib.sha256(second.weights).hexdigest()[:12]
    # The loader takes batches from its workers in turn, and begins with the first one again.
    wanted = complete if args.workers > 1 else complete and all(same)
    print(f"each image once in each epoch: {yes(complete)}; in the same order: {yes(same[0])}; the same weights: {yes(same[1])} ({digest})")
    return wanted


def yes(true):
    return "yes" if true else "NO"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
