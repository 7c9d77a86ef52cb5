"""Has EpochDataset of deploy/examples/pytorch/robustmq_torch.py, without PyTorch, go through the epochs of a topic and to one that it does not
have; then to that one again, when the topic has become longer. Prints what came of each, a line each. At last it asks where no broker is.
"""

import argparse
import pathlib
import sys

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy/examples/pytorch"))
from robustmq_torch import EpochDataset  # noqa: E402: it is no package

EPOCHS = "robustmq.source.epochs"


def show(dataset, epoch):
    dataset.set_epoch(epoch)
    try:
        samples = 0
        for batch in dataset:
            samples += len(batch.data)
            dataset.acknowledge(batch.receipt)
        print(f"epoch {epoch}: {samples} samples")
    except ValueError as error:
        print(f"epoch {epoch}: {error}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--source", required=True)
    args = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    config = {"robustmq.source": args.source, EPOCHS: "2"}
    admin.create_topics([NewTopic("lines", 1, config=config)])["lines"].result(timeout=30)
    with EpochDataset(args.bootstrap, "lines", 2, collate=list, patience_seconds=60) as dataset:
        for epoch in range(3):
            show(dataset, epoch)
        longer = ConfigEntry(EPOCHS, "3", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, "lines", incremental_configs=[longer])
        admin.incremental_alter_configs([resource])[resource].result(timeout=30)
        show(dataset, 2)
    try:
        # Nothing listens there.
        next(iter(EpochDataset("127.0.0.1:1", "lines", 2, patience_seconds=1)))
    except TimeoutError as error:
        print(f"no broker: {error}")


if __name__ == "__main__":
    main()
