"""A `$shared/` group of RobustMQ as a PyTorch IterableDataset, on confluent-kafka. README.md shows how to use it.

A member of the group is one consumer: that of the process itself, or of each DataLoader worker. It is made where the dataset is
iterated, never carried over a fork. Each batch carries a receipt; the consumer that gave it out commits when the receipt comes back,
so what was loaded and not trained stays uncommitted, however far the DataLoader reads ahead.

PyTorch is needed for `equal_steps` only; without it the dataset is a plain iterable.
"""

import contextlib
import itertools
import multiprocessing
import os
import threading
import time
import warnings
from collections import OrderedDict
from multiprocessing.connection import Client, Listener
from multiprocessing.util import Finalize
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

try:
    from torch.utils.data import IterableDataset, default_collate, get_worker_info
except ImportError:
    IterableDataset, get_worker_info = object, None

    def default_collate(samples):
        return samples


SLICE = 0.2  # seconds between two looks whether to go on
FORKED = []
# A commit that fails with one of these may succeed when it is tried again; with any other of the group's errors its member is gone.
TRANSIENT = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
GONE = {
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._STATE,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.INVALID_REQUEST,  # the position lies on a cursor of before
}


class Receipt(NamedTuple):
    """Says which batch of which consumer; small enough to keep until a checkpoint is written."""

    pid: int
    address: object  # where the process listens, if it is a worker
    generation: int
    serial: int
    records: int


class Batch:
    """What one consumer was given together: `data` as collated, and its `receipt`."""

    __slots__ = ("data", "receipt")

    def __init__(self, data, receipt):
        self.data, self.receipt = data, receipt


class AcknowledgeError(Exception):
    """The broker did not take the commit. The records are delivered again unless a later commit of the same consumer succeeds."""


class SharedDataset(IterableDataset):
    """Batches of records that this process, or its DataLoader workers, are given of `topics` in the group `group`.

    Use it with `DataLoader(dataset, batch_size=None, ...)`: the dataset makes the batches, so that each one is of one consumer.

    decode        of a Kafka message makes a sample; None leaves the record out (it is acknowledged with its batch)
    collate       of a list of samples makes `Batch.data`
    fill_seconds  a batch that is not full after this time goes out as it is
    idle_seconds  the iteration ends when no record has come for so long, and none is left that nobody holds; None: never. A killed
                  member's records come to the others after 3 s, so more than that
    drain_seconds how long a worker that has come to its end waits for each outstanding receipt, before its process may end; 0 for
                  persistent workers whose last receipts come after the loop
    config        more settings for the consumer
    """

    def __init__(
        self,
        bootstrap,
        topics,
        group,
        batch_size,
        decode=lambda message: message.value(),
        collate=default_collate,
        fill_seconds=1.0,
        idle_seconds=None,
        drain_seconds=60.0,
        config=None,
    ):
        if not group.startswith("$shared/") or batch_size < 1:
            raise ValueError("group starts with $shared/, batch_size is at least 1")
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        self.group, self.batch_size, self.decode, self.collate = group, batch_size, decode, collate
        self.fill_seconds, self.idle_seconds, self.drain_seconds = fill_seconds, idle_seconds, drain_seconds
        self.config = {
            "bootstrap.servers": bootstrap,
            "auto.offset.reset": "error",
            # The training step, a checkpoint, an evaluation: all that may pass between two looks for records.
            "max.poll.interval.ms": 3_600_000,
            **(config or {}),
            "enable.auto.commit": False,
        }
        self.epoch = None
        self.batches = self.records = 0
        self._owner = os.getpid()
        self._member = None
        self._workers = {}

    # What is trained

    def acknowledge(self, *receipts):
        """Commits what was trained, after the optimiser's step; many at once if you like, in any order: a batch is committed when
        all that its consumer gave out before it are.

        Returns False if records had gone back to the group in the meantime (the broker or the worker has ended): somebody is
        given them again. Raises AcknowledgeError if the broker refuses.
        """
        by_process = {}
        for receipt in receipts:
            by_process.setdefault((receipt.pid, receipt.address), []).append(receipt)
        counted = True
        for (pid, address), own in by_process.items():
            wanted = [(receipt.generation, receipt.serial) for receipt in own]
            here = self._member if pid == os.getpid() else None
            answer = here.acknowledge(wanted) if here else self._ask_worker(address, wanted)
            if isinstance(answer, str):
                raise AcknowledgeError(answer)
            if answer:
                self.batches += len(own)
                self.records += sum(receipt.records for receipt in own)
            else:
                warnings.warn(f"{self.group}: records went back before they were acknowledged", stacklevel=2)
            counted = counted and answer
        return counted

    def _ask_worker(self, address, wanted):
        try:
            if address not in self._workers:
                self._workers[address] = Client(address, authkey=_authkey()) if address else None
            worker = self._workers[address]
            if worker is None:
                return False
            worker.send(wanted)
            return worker.recv()
        except (OSError, EOFError):
            self._workers[address] = None
            return False

    # Resuming

    def set_epoch(self, epoch):
        """Each epoch is a group of its own, `{group}.{epoch}`, that begins at the start of the topics. Before `iter(loader)`, and not
        with persistent workers, which would not hear of it."""
        if epoch != self.epoch:
            self.close()
            self.epoch = epoch

    def group_id(self):
        return self.group if self.epoch is None else f"{self.group}.{self.epoch}"

    def state_dict(self):
        """Where the group is, the broker knows; what is not acknowledged, it gives out again. So this is the epoch, and counts of what
        was acknowledged through this object."""
        return {
            "group": self.group,
            "topics": self.topics,
            "epoch": self.epoch,
            "batches": self.batches,
            "records": self.records,
        }

    def load_state_dict(self, state):
        if (state["group"], state["topics"]) != (self.group, self.topics):
            raise ValueError(f"a state of {state['group']} on {state['topics']}")
        self.set_epoch(state["epoch"])
        self.batches, self.records = state["batches"], state["records"]

    # What comes

    def __iter__(self):
        member, in_worker, parent = self._join(), self._in_worker(), os.getppid()
        member.rewind()
        last = time.monotonic()
        while True:
            # A worker whose parent was killed would hold records for ever.
            if in_worker and os.getppid() != parent:
                return
            waiting = member.take(self.batch_size, SLICE)
            now = time.monotonic()
            last = max(last, member.last_record)
            if waiting == self.batch_size or (waiting and now - member.first_record >= self.fill_seconds):
                messages, receipt = member.give()
                samples = [sample for sample in map(self.decode, messages) if sample is not None]
                if samples:
                    yield Batch(self.collate(samples), receipt)
                else:
                    self.acknowledge(receipt)
                last = time.monotonic()
            elif not waiting and self.idle_seconds is not None and now - last >= self.idle_seconds:
                if member.is_at_end():
                    break
                last = now
        if in_worker and self.drain_seconds and not member.drained(self.drain_seconds):
            warnings.warn(f"{self.group}: a worker ends with batches that were not acknowledged", stacklevel=1)

    def _in_worker(self):
        return get_worker_info() is not None if get_worker_info else os.getpid() != self._owner

    def _join(self):
        member = self._member
        if member is None or member.pid != os.getpid():
            self._leave_alone(member)
            config = {**self.config, "group.id": self.group_id()}
            member = self._member = Member(config, self.topics, listens=self._in_worker())
        return member

    def close(self):
        """Leaves the group; what was not acknowledged goes to the others at once. Workers do so when they end."""
        for worker in self._workers.values():
            if worker:
                worker.close()
        self._workers = {}
        if self._member and self._member.pid == os.getpid():
            self._member.close()
        self._leave_alone(self._member)
        self._member = None

    @staticmethod
    def _leave_alone(member):
        """Keeps one that came with a fork: to end it would wait for threads that are in the other process."""
        if member and member.pid != os.getpid():
            FORKED.append(member)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def __getstate__(self):
        return {**self.__dict__, "_member": None, "_workers": {}}


def _authkey():
    return bytes(multiprocessing.current_process().authkey)


class Member:
    """The consumer of this process, and what it has given out."""

    def __init__(self, config, topics, listens):
        self.topics, self.pid, self.generation, self.serial = topics, os.getpid(), 0, 0
        self.changed, self.committing = threading.Condition(), threading.Lock()
        self.given = OrderedDict()  # serial: [first offsets, next offsets, is trained]
        self.waiting = []  # messages that are in no batch yet
        self.first_record = self.last_record = 0.0
        self.consumer = Consumer(config)
        self.consumer.subscribe(topics, on_revoke=self._lost, on_lost=self._lost)
        self.address = self._listen() if listens else None
        # Runs at the end of a worker too, where atexit does not.
        self.close = Finalize(self, Consumer.close, args=(self.consumer,), exitpriority=10)

    def _lost(self, _consumer, _partitions):
        """The cursor is no more: what was given out and not committed is delivered again, to whomever."""
        with self.changed:
            self.generation += 1
            self.given.clear()
            self.waiting.clear()
            self.changed.notify_all()

    def rewind(self):
        """Starts again at the first record that was given out and not committed."""
        with self.changed:
            starts = {}
            for first, _, _ in self.given.values():
                starts = {**first, **starts}
            starts = {**_offsets(reversed(self.waiting)), **starts}
            self.generation += 1
            self.given.clear()
            self.waiting.clear()
        for (topic, partition), offset in starts.items():
            self.consumer.seek(TopicPartition(topic, partition, offset))

    def take(self, wanted, seconds):
        """Waits for records; says how many there are for the next batch."""
        messages = self.consumer.consume(wanted - len(self.waiting), seconds)
        good = [message for message in messages if message.error() is None]
        if good:
            self.last_record = time.monotonic()
            if not self.waiting:
                self.first_record = self.last_record
            self.waiting.extend(good)
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
        return len(self.waiting)

    def is_at_end(self):
        """Whether nothing is left that nobody holds. Raises KafkaException if no broker answers."""
        self.consumer.list_topics(self.topics[0], timeout=10)
        positions = self.consumer.position(self.consumer.assignment())
        fresh = [place for place in positions if place.offset < 0]
        if fresh:
            positions = [place for place in positions if place.offset >= 0] + self.consumer.committed(fresh, timeout=10)
        # The end that a member is told is as far away as there are records for the group: it may be given them later, for instance
        # when it has acknowledged more.
        ends = [self.consumer.get_watermark_offsets(place, cached=True)[1] for place in positions]
        return bool(positions) and all(0 <= end <= place.offset for end, place in zip(ends, positions, strict=True))

    def give(self):
        """The records that wait, as a batch."""
        with self.changed:
            messages, self.waiting = self.waiting, []
            self.serial += 1
            ends = {place: offset + 1 for place, offset in _offsets(messages).items()}
            self.given[self.serial] = [_offsets(reversed(messages)), ends, False]
            receipt = Receipt(self.pid, self.address, self.generation, self.serial, len(messages))
        return messages, receipt

    def acknowledge(self, wanted):
        """Commits as far as everything is trained: a position stands for all that came before it. True; False if it is too late; what
        the broker says if it refuses."""
        with self.committing:
            with self.changed:
                known = all(generation == self.generation for generation, _ in wanted)
                for generation, serial in wanted:
                    if generation == self.generation and serial in self.given:
                        self.given[serial][2] = True
                done = list(itertools.takewhile(lambda serial: self.given[serial][2], self.given))
                ends = {}
                for serial in done:
                    ends.update(self.given[serial][1])
            if not ends:
                return known
            answer = self._commit([TopicPartition(*place, offset) for place, offset in ends.items()])
            if answer is not True:
                return answer
            with self.changed:
                for serial in done:
                    self.given.pop(serial, None)
                self.changed.notify_all()
            return known

    def _commit(self, positions):
        deadline = time.monotonic() + 30
        while True:
            try:
                committed = self.consumer.commit(offsets=positions, asynchronous=False)
                errors = [place.error for place in committed if place.error]
            except KafkaException as failed:
                errors = [failed.args[0]]
            if not errors:
                return True
            if errors[0].code() in GONE:
                return False
            if errors[0].code() not in TRANSIENT or time.monotonic() > deadline:
                return str(errors[0])
            time.sleep(SLICE)

    def drained(self, seconds):
        """Waits until everything that was given out is acknowledged; not longer than `seconds` for the next receipt."""
        with self.changed:
            while self.given:
                if not self.changed.wait(seconds):
                    return False
        return True

    def _listen(self):
        listener = Listener(authkey=_authkey())

        def answer(main):
            with contextlib.suppress(OSError, EOFError), main:
                while True:
                    main.send(self.acknowledge(main.recv()))

        def accept():
            while True:
                with contextlib.suppress(OSError, EOFError, multiprocessing.AuthenticationError):
                    main = listener.accept()
                    threading.Thread(target=answer, args=(main,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.address


def _offsets(messages):
    """The last offset in each partition."""
    return {(message.topic(), message.partition()): message.offset() for message in messages}


def equal_steps(batches, leave_rest=False, process_group=None):
    """Goes through `batches` in step with all other ranks, which all end together.

    A rank that has no batch left while another has is given None: it takes part in the step without data. With `leave_rest` all end as
    soon as one has none; batches in hand are not acknowledged then, and go back to the group. When one rank fails, all raise.

    `process_group`: a gloo group, if the default one cannot reduce tensors in main memory (NCCL).
    """
    import torch
    import torch.distributed as dist

    batches = iter(batches)
    world = dist.get_world_size(process_group)
    batch, failure = None, None

    def advance():
        nonlocal failure
        try:
            return next(batches, None)
        except Exception as error:  # noqa: BLE001: raised below, once the others know
            failure = error
            return None

    batch = advance()
    while True:
        counts = torch.tensor([batch is not None, failure is not None], dtype=torch.int64)
        dist.all_reduce(counts, group=process_group)
        with_batch, failed = counts.tolist()
        if failure is not None:
            raise failure
        if failed:
            raise RuntimeError(f"{failed} other ranks failed to load their next batch")
        if with_batch < (world if leave_rest else 1):
            return
        yield batch
        batch = advance() if batch is not None else None
