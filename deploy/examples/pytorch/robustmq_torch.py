"""RobustMQ's topics as PyTorch IterableDatasets, on confluent-kafka. README.md shows how to use them.

`SharedDataset` is a `$shared/` group. A member of it is one consumer: that of the process itself, or of each DataLoader worker. It is
made where the dataset is iterated, never carried over a fork. Each batch carries a receipt; the consumer that gave it out commits when
the receipt comes back, so what was loaded and not trained stays uncommitted, however far the DataLoader reads ahead.

`EpochDataset` is a dataset topic, epoch by epoch, without a group: a checkpoint has the offsets, and the order depends on nothing else.

PyTorch is needed for `equal_steps` only; without it the datasets are plain iterables.
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
from confluent_kafka.admin import AdminClient, ConfigResource

try:
    from torch.utils.data import IterableDataset, default_collate, get_worker_info
except ImportError:
    IterableDataset, get_worker_info = object, None

    def default_collate(samples):
        return samples


SLICE = 0.2  # seconds between two looks whether to go on
PATIENCE_STEP = 5.0  # seconds that a broker has for an answer before it is asked again
PROBE = 1.0  # seconds that a broker has to say that there is nothing behind an offset
FORKED = []
EPOCH_HEADER = "robustmq.epoch"
EPOCHS_CONFIG = "robustmq.source.epochs"
CONNECTION_SETTINGS = ("bootstrap.servers", "broker.", "client.", "oauth_cb", "sasl.", "security.", "socket.", "ssl.")  # of an AdminClient too
ERROR_HEADER = "robustmq.error"  # of a record without a value, which stands for a sample that cannot be read
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


class Stretch(NamedTuple):
    """What was read of a partition: offsets `first` to `end`, without `end`."""

    partition: int
    start: int  # the offset of the epoch's first record there; None if none has come yet
    first: int
    end: int


class Given(NamedTuple):
    """The receipt of an EpochDataset's batch: where its records lie."""

    epoch: int
    stretches: tuple
    records: int
    left_out: int


class EpochDataset(IterableDataset):
    """Batches of one epoch of a dataset topic: of this rank's partitions, each from an exact offset.

    Use it with `DataLoader(dataset, batch_size=None, ...)`. Partitions go to the ranks in turn, and a rank's to its workers. A worker takes
    records from its partitions in turn too, so that the order depends on offsets alone, not on which partition answers first.

    decode            of a Kafka message makes a sample; None leaves the record out
    collate           of a list of samples makes `Batch.data`
    rank, world       those of torch.distributed, if it is initialised when the dataset is made
    prefetch_bytes    that each worker fetches ahead, of all its partitions together
    patience_seconds  without an answer of the broker at the start, or without a record in the middle of an epoch, then it raises TimeoutError
    config            more settings for the consumers
    """

    def __init__(
        self,
        bootstrap,
        topic,
        batch_size,
        decode=lambda message: message.value(),
        collate=default_collate,
        rank=None,
        world=None,
        prefetch_bytes=32 * 1024 * 1024,
        patience_seconds=300.0,
        config=None,
    ):
        if rank is None or world is None:
            rank, world = _rank_and_world()
        if batch_size < 1 or not 0 <= rank < world:
            raise ValueError("batch_size is at least 1, rank less than world")
        self.topic, self.batch_size, self.decode, self.collate = topic, batch_size, decode, collate
        self.rank, self.world, self.prefetch_bytes, self.patience_seconds = rank, world, prefetch_bytes, patience_seconds
        self.config = {
            "bootstrap.servers": bootstrap,
            "group.id": "none",  # the client wants a name; nothing joins, nothing is committed
            # With the default of a second, a reader that fetches little ahead waits for that second each time it has fetched enough.
            "fetch.queue.backoff.ms": 20,
            "fetch.wait.max.ms": 100,  # how soon a consumer can go to another offset
            **(config or {}),
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
        self.epoch = self.records = self.left_out = 0
        self.offsets, self.starts = {}, {}  # by partition: what is to be trained next; where the epoch begins
        self._early = {}  # what was trained before something that was given out before it
        self._readers = self._iterated = None
        self._epochs = 0  # that the topic has, as far as is known

    # What is trained

    def acknowledge(self, *receipts):
        """Says what was trained, after the optimiser's step; in any order. `state_dict()` goes as far as everything is."""
        for receipt in receipts:
            self.records += receipt.records
            self.left_out += receipt.left_out
            for partition, start, first, end in receipt.stretches:
                if start is not None and receipt.epoch == self.epoch:
                    self.starts[partition] = start
                early = self._early.setdefault(partition, {})
                early[first] = end
                at = self.offsets.get(partition, 0)
                while at in early:
                    at = early.pop(at)
                self.offsets[partition] = at
        return True

    def set_epoch(self, epoch):
        """The epoch that the next iteration gives. Before `iter(loader)`, and not with persistent workers, which would not hear of it.
        One that does not follow the last is read up to: from where that ended or, if it comes before that, from the topic's beginning.
        The iteration raises ValueError for one that the topic does not have."""
        if epoch < self.epoch:
            self.offsets = {}
        if epoch != self.epoch:
            self.epoch, self.starts, self._early = epoch, {}, {}

    # Resuming

    def state_dict(self):
        """Where this rank is, with what was acknowledged and nothing that was only loaded."""
        place = {"topic": self.topic, "rank": self.rank, "world": self.world, "epoch": self.epoch}
        counts = {"records": self.records, "left_out": self.left_out}
        return {**place, "offsets": dict(self.offsets), "starts": dict(self.starts), **counts}

    def load_state_dict(self, *states):
        """Goes on from there, in the middle of an epoch too. With another number of ranks: the states of all that there were, for each."""
        ranks = sorted(state["rank"] for state in states)
        worlds = {state["world"] for state in states}
        own, all_there = worlds == {self.world} and ranks == [self.rank], worlds == {len(ranks)} and ranks == [*range(len(ranks))]
        if not (own or all_there):
            raise ValueError(f"states of ranks {ranks} of {worlds} for rank {self.rank} of {self.world}")
        if len({(state["topic"], state["epoch"]) for state in states}) > 1 or states[0]["topic"] != self.topic:
            raise ValueError(f"not states of one epoch of {self.topic}")
        self.close()
        self.epoch, self._early = states[0]["epoch"], {}
        # Text, where a state was kept as JSON.
        self.offsets, self.starts = (
            {int(partition): offset for state in states for partition, offset in state[name].items()} for name in ("offsets", "starts")
        )
        self.records, self.left_out = (sum(state[name] for state in states) for name in ("records", "left_out"))

    # What comes

    def __iter__(self):
        readers = self._open()
        for reader in readers:
            reader.begin(self.epoch, self.starts.get(reader.partition), self.offsets.get(reader.partition, 0))
        running, samples, left_out = list(readers), [], 0
        while running:
            reader = min(running, key=PartitionReader.turn)
            message = reader.take()
            if message is None:
                running.remove(reader)
                continue
            if message.value() is None and _header(message, ERROR_HEADER) is not None:
                left_out += 1
                continue
            sample = self.decode(message)
            if sample is not None:
                samples.append(sample)
            if len(samples) == self.batch_size:
                yield self._batch(readers, samples, left_out)
                samples, left_out = [], 0
        # What is left out after the last sample has no batch to go with: it is passed over when the next epoch begins.
        if samples:
            yield self._batch(readers, samples, left_out)

    def _batch(self, readers, samples, left_out):
        stretches = tuple(stretch for stretch in map(PartitionReader.given, readers) if stretch)
        return Batch(self.collate(samples), Given(self.epoch, stretches, len(samples), left_out))

    def _open(self):
        """The readers of this process' partitions. They stay from epoch to epoch, with what they fetched ahead."""
        worker = get_worker_info() if get_worker_info else None
        if worker and self._iterated == self.epoch:
            raise RuntimeError("set_epoch does not reach persistent workers")
        self._iterated = self.epoch
        self._check_epoch()
        if self._readers is None or any(reader.pid != os.getpid() for reader in self._readers):
            self.close()
            mine = self._partitions()
            if worker:
                mine = mine[worker.id :: worker.num_workers]
            kilobytes = max(1024, self.prefetch_bytes // 1024 // max(1, len(mine)))
            config = {"queued.max.messages.kbytes": kilobytes, **self.config}
            self._readers = [PartitionReader(config, self.topic, number, self.patience_seconds) for number in mine]
        return self._readers

    def _check_epoch(self):
        """Behind the last epoch there is nothing, which would look like an epoch without samples."""
        if self.epoch >= self._epochs:
            # It may have become more.
            self._epochs = self._topic_epochs()
        if not 0 <= self.epoch < self._epochs:
            there_are = "epoch 0 only" if self._epochs == 1 else f"epochs 0 to {self._epochs - 1}"
            more = f"`robustmq-cloud topic alter {self.topic} --config {EPOCHS_CONFIG}=N` gives it more"
            raise ValueError(f"{self.topic} has no epoch {self.epoch}: it has {there_are}; {more}")

    def _topic_epochs(self):
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.topic)
        settings = {name: value for name, value in self.config.items() if name.startswith(CONNECTION_SETTINGS)}
        # 5 is NOTICE: how it is closed is of no interest.
        admin = AdminClient({"log_level": 5, **settings})
        entries = self._once_there(lambda: admin.describe_configs([resource], request_timeout=self._step())[resource].result())
        if EPOCHS_CONFIG not in entries or not entries["robustmq.source"].value:
            raise ValueError(f"{self.topic} is no dataset topic")
        return int(entries[EPOCHS_CONFIG].value)

    def _step(self):
        return min(PATIENCE_STEP, self.patience_seconds)

    def _once_there(self, ask):
        """What the broker answers: one that is down is waited for, `patience_seconds`."""
        deadline, is_told = time.monotonic() + self.patience_seconds, False
        while True:
            began = time.monotonic()
            try:
                return ask()
            except KafkaException as failed:
                if failed.args[0].code() not in TRANSIENT:
                    raise
                reason = failed.args[0].str()
            where = f"{self.config['bootstrap.servers']} does not answer ({reason})"
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{where}, and was waited for for {self.patience_seconds:g} s (patience_seconds)")
            if not is_told:
                warnings.warn(f"{where}: it is waited for", stacklevel=2)
                is_told = True
            # What is refused at once is not to be asked for without a pause.
            time.sleep(max(0.0, min(1.0 - (time.monotonic() - began), deadline - time.monotonic())))

    def _partitions(self):
        consumer = Consumer(self.config)
        try:
            found = self._once_there(lambda: consumer.list_topics(self.topic, timeout=self._step())).topics[self.topic]
        finally:
            consumer.close()
        if found.error:
            raise KafkaException(found.error)
        if len(found.partitions) < self.world:
            raise ValueError(f"{self.topic} has {len(found.partitions)} partitions for {self.world} ranks")
        return sorted(found.partitions)[self.rank :: self.world]

    def close(self):
        for reader in self._readers or []:
            # One that came with a fork is kept: to end it would wait for threads that are in the other process.
            if reader.pid == os.getpid():
                reader.close()
            else:
                FORKED.append(reader)
        self._readers = None

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def __getstate__(self):
        return {**self.__dict__, "_readers": None}


class PartitionReader:
    """A consumer of one partition: with one for each, a worker can take them in turn and none fills the room of the others."""

    def __init__(self, config, topic, partition, patience_seconds):
        self.topic, self.partition, self.patience_seconds, self.pid = topic, partition, patience_seconds, os.getpid()
        self.epoch, self.start, self.unsaid = 0, None, 0
        self.next, self.message, self.is_over = None, None, False
        self.consumer = Consumer(config)
        # Runs at the end of a worker too, where atexit does not.
        self.close = Finalize(self, Consumer.close, args=(self.consumer,), exitpriority=10)

    def begin(self, epoch, start, offset):
        """Goes to `offset`, if it is not there. Where the topic ended before it may go on now."""
        self.epoch, self.start, self.unsaid = epoch, start, offset
        if offset != self.next or self.is_over:
            self._go_to(offset)

    def turn(self):
        """The smallest is next: who has given the fewest of this epoch's records."""
        return (0 if self.start is None else self.next - self.start, self.partition)

    def take(self):
        """The next record of the epoch; None at its end."""
        while self._has_next():
            message = self.message
            epoch = _header(message, EPOCH_HEADER)
            if epoch is None:
                raise ValueError(f"{self.topic} is no dataset topic: a record has no {EPOCH_HEADER}")
            if int(epoch) > self.epoch:
                break
            self.message, self.next = None, message.offset() + 1
            if int(epoch) == self.epoch:
                if self.start is None:
                    self.start = message.offset()
                return message
        return None

    def given(self):
        """What was taken since the last call."""
        if self.unsaid == self.next:
            return None
        stretch = Stretch(self.partition, self.start, self.unsaid, self.next)
        self.unsaid = self.next
        return stretch

    def _has_next(self):
        """Waits for the next record; False where the topic ends."""
        deadline, pause, look = time.monotonic() + self.patience_seconds, SLICE / 2, None
        while self.message is None and not self.is_over:
            message, now = self.consumer.poll(SLICE / 2), time.monotonic()
            if message is None:
                if look is not None and now >= look:
                    self.is_over, look = self._is_at_end(), None
                    pause = min(2 * pause, 10)
            elif message.error() is None:
                if message.offset() != self.next:
                    raise RuntimeError(f"{self.topic}-{self.partition}: {message.offset()} came where {self.next} was due")
                self.message = message
            elif message.error().code() == KafkaError._PARTITION_EOF:
                # Or so it seems: records are counted only a little ahead of who reads them.
                look = now + pause
            elif message.error().code() not in TRANSIENT:
                raise KafkaException(message.error())
            if self.message is None and now > deadline:
                where = f"{self.topic}-{self.partition} at offset {self.next}"
                raise TimeoutError(f"{where}: no record; `robustmq-cloud dataset status {self.topic}` may say why")
        return self.message is not None

    def _is_at_end(self):
        """Whether nothing is ever to come at the next offset. A broker refuses what lies behind a partition's end only where it knows
        the end, with all epochs counted; what is not counted yet is waited for."""
        self.consumer.assign([TopicPartition(self.topic, self.partition, self.next + 1)])
        deadline = time.monotonic() + PROBE
        while time.monotonic() < deadline:
            message = self.consumer.poll(SLICE)
            error = message.error() if message else None
            if error and error.code() == KafkaError._AUTO_OFFSET_RESET:
                return True
            if message and not error:
                break
        self._go_to(self.next)
        return False

    def _go_to(self, offset):
        self.next, self.message, self.is_over = offset, None, False
        self.consumer.assign([TopicPartition(self.topic, self.partition, offset)])


def _header(message, wanted):
    return next((value for name, value in message.headers() or [] if name == wanted), None)


def _rank_and_world():
    try:
        import torch.distributed as dist
    except ImportError:
        return 0, 1
    there_is_one = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if there_is_one else (0, 1)


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
