#!/usr/bin/env python3
"""ResNet-50 on a GPU, trained on JPEG files of about 110 KB from a dataset topic: how much of the time it waits for them.

    python train_gpu.py --bootstrap 127.0.0.1:9092 --source file:///data/photos --make 20000
    python train_gpu.py --bootstrap 127.0.0.1:9092 --source s3://photos/ --direct http://s3:9000/photos/

The GPU decodes the files (nvJPEG), scales them to 224 x 224 and does the steps, in bfloat16. Utilisation is what it needs for as many steps on
files that lie in this process' memory, over what it took. With --direct the same loop follows on the shards themselves, ranged GETs, each worker
its own shards and one ahead. The pictures are cut from scikit-learn's two photographs.
"""

import argparse
import concurrent.futures
import io
import os
import pathlib
import random
import sys
import tarfile
import time

import torch
import torchvision
from emulate_storage import create, get, listed
from robustmq_torch import EpochDataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

SHARD = 128  # pictures
WIDTH, HEIGHT = 500, 375  # pixels: what a picture of ImageNet has on average
CLASSES = 2
QUALITY = 95  # of JPEG: with it, a picture has about as many bytes as one of ImageNet
RESIDENT = 2  # batches in memory that what the GPU needs is measured with


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True, help="the broker, HOST:PORT")
    parser.add_argument("--topic", default="photos", help="created if it is missing")
    parser.add_argument("--source", help="what the topic is created on: s3://BUCKET/PREFIX/ or file:///DIR")
    parser.add_argument("--make", type=int, metavar="PICTURES", help="in shards into the directory of --source, if it has none")
    parser.add_argument("--direct", metavar="URL", help="file:///DIR, or http://HOST/BUCKET/PREFIX/ of an S3 that needs no signature")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="of the requests of --direct")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4, help="of the DataLoader")
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    if args.make:
        make(args)
    create(args, args.partitions)
    gpu = Gpu()
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; batches of {args.batch}, {args.workers} workers")
    resident = [unpack(collate(batch)) for batch in made(args.batch)]
    ideal = gpu.seconds_for(resident)
    mean = sum(len(file) for file in resident[0][0]) / len(resident[0][0])
    rate = args.batch / ideal
    print(f"files of {mean:,.0f} bytes; from memory a step takes {ideal * 1000:.1f} ms: {rate:,.0f} pictures/s, {rate * mean / 1e6:,.0f} MB/s")
    for title, source in [(f"topic {args.topic}", from_topic)] + ([(args.direct, from_objects)] if args.direct else []):
        print(f"\n{title}\nepoch  pictures   seconds  pictures/s   MB/s  utilisation   loss")
        for epoch, batches in enumerate(source(args)):
            show(epoch, ideal / args.batch, *gpu.train(batches))


def show(epoch, ideal, pictures, size, seconds, loss):
    use = pictures * ideal / seconds
    print(f"{epoch:5}  {pictures:8}  {seconds:8.2f}  {pictures / seconds:10,.0f}  {size / seconds / 1e6:5,.0f}  {use:11.1%}  {loss:5.2f}", flush=True)


# The data


def make(args):
    scheme, _, folder = (args.source or "").partition("://")
    if scheme != "file":
        sys.exit("--make needs a --source file:///DIR")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    began = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor() as processes:
        sizes = list(processes.map(make_shard, [folder] * -(-args.make // SHARD), range(-(-args.make // SHARD))))
    print(f"{len(sizes) * SHARD} pictures, {sum(sizes) / 1e9:.2f} GB, in {len(sizes)} shards; made in {time.monotonic() - began:.0f} s")


def make_shard(folder, shard):
    size = 0
    with tarfile.open(folder / f"{shard:06}.tar", "w") as tar:
        for number, (content, label) in enumerate(pictures(shard, SHARD)):
            for extension, data in (("jpg", content), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{shard:06}-{number:04}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
                size += len(data)
    return size


def pictures(seed, count):
    """Pieces of the photographs, scaled and with noise, each another one; and which photograph it was."""
    import numpy
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    dice, noise = random.Random(seed), numpy.random.default_rng(seed)
    for _ in range(count):
        label = dice.randrange(CLASSES)
        photograph, part = photographs[label], dice.uniform(0.5, 0.95)
        wide, high = photograph.width * part, photograph.height * part
        left, top = dice.uniform(0, photograph.width - wide), dice.uniform(0, photograph.height - high)
        piece = photograph.resize((WIDTH, HEIGHT), box=(left, top, left + wide, top + high))
        grain = noise.integers(-12, 13, (HEIGHT, WIDTH, 3), dtype=numpy.int16)
        pixels = (numpy.asarray(piece, numpy.int16) + grain).clip(0, 255).astype(numpy.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY)
        yield content.getvalue(), label


def made(batch):
    """As many batches as what the GPU needs is measured with."""
    for seed in range(RESIDENT):
        yield pictures(seed, batch)


# Where batches come from: for each epoch, batches of files and labels


def from_topic(args):
    dataset = EpochDataset(args.bootstrap, args.topic, args.batch, decode=decode, collate=collate)
    for epoch in range(args.epochs):
        dataset.set_epoch(epoch)
        yield acknowledged(dataset, loader(args, dataset))
    dataset.close()


def acknowledged(dataset, batches):
    for batch in batches:
        yield unpack(batch.data)
        dataset.acknowledge(batch.receipt)


def from_objects(args):
    for epoch in range(args.epochs):
        yield map(unpack, loader(args, FromObjects(args, epoch)))


def loader(args, dataset):
    return DataLoader(dataset, batch_size=None, num_workers=args.workers, prefetch_factor=4 if args.workers else None)


class FromObjects(IterableDataset):
    """The same from whole shards, in another order each epoch; the next one is fetched while one is used."""

    def __init__(self, args, epoch):
        self.args, self.epoch, self.shards = args, epoch, listed(args)

    def __iter__(self):
        worker = get_worker_info()
        order = random.Random(self.epoch).sample(self.shards, len(self.shards))
        order = order[worker.id :: worker.num_workers] if worker else order
        samples = []
        with concurrent.futures.ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(get, self.args, shard) for shard in order[:1]]
            for number in range(len(order)):
                shard = coming.pop().result()
                coming += [ahead.submit(get, self.args, following) for following in order[number + 1 : number + 2]]
                for sample in members(shard):
                    samples.append(sample)
                    if len(samples) == self.args.batch:
                        yield collate(samples)
                        samples = []
        if samples:
            yield collate(samples)


def members(shard):
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        picture = None
        for member in tar:
            content = tar.extractfile(member).read()
            if member.name.endswith(".jpg"):
                picture = content
            else:
                yield picture, int(content)


def decode(message):
    return message.value(), int(next(value for key, value in message.headers() if key == "cls"))


def collate(samples):
    """Files one after the other, which go from process to process as one tensor; their sizes; their labels."""
    files, labels = zip(*samples, strict=True)
    together = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
    return together, [len(file) for file in files], torch.tensor(labels)


def unpack(batch):
    together, sizes, labels = batch
    return together.split(sizes), labels


# The GPU


class Gpu:
    def __init__(self):
        if not torch.cuda.is_available():
            sys.exit("there is no GPU that PyTorch can use")
        torch.backends.cudnn.benchmark = True
        model = torchvision.models.resnet50(num_classes=CLASSES).cuda()
        self.model = model.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.02, momentum=0.9)
        self.mean = torch.tensor([0.485, 0.456, 0.406], device="cuda").view(1, 3, 1, 1)
        self.deviation = torch.tensor([0.229, 0.224, 0.225], device="cuda").view(1, 3, 1, 1)

    def step(self, files, labels):
        decoded = torchvision.io.decode_jpeg(list(files), device="cuda")
        pictures = torch.stack(decoded).float().div_(255)
        pictures = torch.nn.functional.interpolate(pictures, (224, 224), mode="bilinear", antialias=True)
        pictures = (pictures - self.mean) / self.deviation
        with torch.autocast("cuda", torch.bfloat16):
            logits = self.model(pictures.contiguous(memory_format=torch.channels_last))
            loss = torch.nn.functional.cross_entropy(logits, labels.cuda(non_blocking=True))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def seconds_for(self, batches, rounds=10):
        """What a step takes when its files are there."""
        for warm in (True, False):
            torch.cuda.synchronize()
            began = time.monotonic()
            for _ in range(2 if warm else rounds):
                for batch in batches:
                    self.step(*batch)
            torch.cuda.synchronize()
        return (time.monotonic() - began) / rounds / len(batches)

    def train(self, batches):
        """An epoch: pictures, bytes, seconds, the last loss."""
        pictures, size, loss = 0, 0, torch.zeros(())
        began = time.monotonic()
        for files, labels in batches:
            loss = self.step(files, labels)
            pictures, size = pictures + len(files), size + sum(len(file) for file in files)
        torch.cuda.synchronize()
        return pictures, size, time.monotonic() - began, float(loss)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
