"""Has deploy/examples/pytorch/robustmq_torch.py, without PyTorch, go through a topic. Prints one JSON object that tells what it saw.

First a process that reads ahead, as a DataLoader's worker does, gives batches to this one, which acknowledges some of them, in
another order, and ends it. Then this process takes the rest; it gives up its first batch and begins again before that.
"""

import argparse
import multiprocessing
import pathlib
import sys

import tally

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy/examples/pytorch"))
from robustmq_torch import SharedDataset  # noqa: E402: it is no package

TRAINED = 20  # batches that are acknowledged of what the other process loads
IDLE = 5.0


def number(message):
    return int(dict(message.headers())["number"])


def load(dataset, loaded):
    for batch in dataset:
        loaded.put(batch)


def read_ahead(dataset):
    """What is acknowledged of what another process loads, which is ended with more in hand."""
    context = multiprocessing.get_context("spawn")
    loaded = context.Queue(maxsize=2)
    loader = context.Process(target=load, args=(dataset, loaded), daemon=True)
    loader.start()
    trained = []
    for _ in range(TRAINED // 2):
        pair = [loaded.get(timeout=60) for _ in range(2)]
        for batch in reversed(pair):
            if not dataset.acknowledge(batch.receipt):
                raise SystemExit("too late, though the loader is there")
            trained += batch.data
    unused = loaded.get(timeout=60)
    loader.kill()
    loader.join()
    return trained, dataset.acknowledge(unused.receipt)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    args = parser.parse_args()
    # All batches are full, however long they take.
    options = {"decode": number, "idle_seconds": IDLE, "fill_seconds": 60.0}
    with SharedDataset(args.bootstrap, args.topic, args.group, 10, **options) as dataset:
        trained, late = read_ahead(dataset)
        given_up = next(iter(dataset)).data
        rest, first = [], None
        for batch in dataset:
            first = first or batch.data
            if dataset.acknowledge(batch.receipt):
                rest += batch.data
        state = dataset.state_dict()
    tally.report(
        trained=len(trained),
        late=late,
        rest=len(rest),
        begun_again=first == given_up,
        twice=len(trained) + len(rest) - len({*trained, *rest}),
        batches=state["batches"],
        records=state["records"],
    )


if __name__ == "__main__":
    main()
