"""What the Python client programs share: the records that they write, what they count when they read, the command line.

Record number n has key `key-{n % 100}`, a value that starts with `n:` and is filled up to the wanted size, and the headers
`number` and `client`.

Commands, all reporting one JSON object per line on standard output:

    produce  --topic T --count N [--first N] [--compression C] [--size BYTES]
    read     --topic T --count N            all partitions from the start, without a group
    group    --topic T --count N --group G  three members; prints {"event": "ready"} when each has partitions; the third
                                            commits and leaves after --leave-after records; ends when all were read
    work     --topic T --group G            one member, with the client's own automatic commits; prints {"took": [N, ...]}
                                            for what it is given, and leaves when its standard input ends
    share    --topic T --group G            one member of a share group (KIP-932), which says of each record what becomes of it (see
                                            verdict); prints {"took": [N, ...], "rejected": [N, ...]} just before it says so
"""

import argparse
import json
import sys
import threading
import time

KEYS = 100
MEMBERS = 3


def key(number):
    return f"key-{number % KEYS}".encode()


def value(number, size):
    text = f"{number}:".encode()
    return text + b"x" * max(0, size - len(text))


def headers(number, client):
    return [("number", str(number).encode()), ("client", client.encode())]


def report(**fields):
    print(json.dumps(fields), flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["produce", "read", "group", "work", "share"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--compression", default="none")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--group", default="group")
    parser.add_argument("--leave-after", type=int, default=100)
    parser.add_argument("--protocol", default="classic")
    parser.add_argument("--timeout", type=float, default=60)
    return parser.parse_args()


class Tally:
    """Counts what arrived. Safe to share between members that run in threads."""

    def __init__(self, expected):
        self.expected = expected
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.times_seen = {}
        self.last_of_key = {}
        self.members = [0] * MEMBERS
        self.out_of_order = 0
        self.wrong = 0

    def add(self, member, record_key, record_value, record_headers):
        with self.lock:
            self.members[member] += 1
            if self.members[member] == 1:
                self.changed.notify_all()
            named = dict(record_headers or [])
            try:
                number = int(named["number"])
            except (KeyError, ValueError):
                self.wrong += 1
                return
            if record_key != key(number) or not record_value.startswith(f"{number}:".encode()):
                self.wrong += 1
            seen = self.times_seen.get(number, 0)
            self.times_seen[number] = seen + 1
            if seen == 0:
                if number < self.last_of_key.get(record_key, -1):
                    self.out_of_order += 1
                self.last_of_key[record_key] = number

    def wait_for_others(self, deadline):
        """Until every member has been given something: two that are quick would leave nothing for one that is slow to begin."""
        with self.changed:
            self.changed.wait_for(lambda: all(self.members), max(0, deadline.at - time.monotonic()))

    def complete(self):
        with self.lock:
            return len(self.times_seen) >= self.expected

    def result(self, **more):
        with self.lock:
            repeated = sum(count - 1 for count in self.times_seen.values())
            return {
                "distinct": len(self.times_seen),
                "repeated": repeated,
                "out_of_order": self.out_of_order,
                "wrong": self.wrong,
                "members": self.members,
                **more,
            }


class Ready:
    """Says once that every member has partitions."""

    def __init__(self):
        self.lock = threading.Lock()
        self.with_partitions = set()
        self.said = False

    def assigned(self, member, partitions):
        with self.lock:
            if partitions:
                self.with_partitions.add(member)
            else:
                self.with_partitions.discard(member)
            if len(self.with_partitions) == MEMBERS and not self.said:
                self.said = True
                report(event="ready")


class Deadline:
    def __init__(self, seconds):
        self.at = time.monotonic() + seconds

    def passed(self):
        return time.monotonic() > self.at


def ended():
    """An event that is set when standard input ends."""
    event = threading.Event()

    def watch():
        sys.stdin.read()
        event.set()

    threading.Thread(target=watch, daemon=True).start()
    return event


def took(headers_of_each):
    """Says which records a member was given, by their header `number`."""
    numbers = [int(dict(record_headers)["number"]) for record_headers in headers_of_each]
    if numbers:
        report(took=numbers)


def verdict(number, again):
    """What becomes of a record in a share group: one of ten is released when it comes for the first time, one of a hundred rejected."""
    if number % 100 == 7:
        return "reject"
    return "release" if number % 10 == 3 and not again else "accept"


def run_members(work):
    """Runs work(member) in a thread for each member; an exception of one ends the program with that error."""
    errors = []

    def guarded(member):
        try:
            work(member)
        except Exception as error:  # noqa: BLE001: reported below
            errors.append(f"member {member}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(member,)) for member in range(MEMBERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit("; ".join(errors))
