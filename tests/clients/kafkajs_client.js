"use strict";
// kafkajs, all in JavaScript. Commands, records and reports are those of tally.py.
//
// Each consumer has a Kafka object of its own: the consumers of one share a table of committed offsets by group and partition, so that
// members with the same partitions may take each other's.

const { CompressionTypes, Kafka, logLevel } = require("kafkajs");

const MEMBERS = 3;
// A Fetch waits 5 s by default, and a heartbeat and the end wait for it; with other clients it is 0.5 s.
const TIMES = { sessionTimeout: 10_000, heartbeatInterval: 1_000, maxWaitTimeInMs: 500 };

function parse(argv) {
  const args = { first: 0, size: 100, compression: "none", group: "group", "leave-after": 100, timeout: 60 };
  for (let i = 1; i + 1 < argv.length; i += 2) {
    const name = argv[i].slice(2);
    args[name] = typeof args[name] === "number" || name === "count" ? Number(argv[i + 1]) : argv[i + 1];
  }
  return args;
}

const args = parse(process.argv.slice(2));
const deadline = Date.now() + args.timeout * 1000;

function say(report) {
  process.stdout.write(JSON.stringify(report) + "\n");
}

function kafka(clientId) {
  return new Kafka({ brokers: [args.bootstrap], clientId, logLevel: logLevel.ERROR });
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const numberOf = (message) => Number(message.headers.number.toString());

/** Counts what arrived, as Tally in tally.py does. */
class Tally {
  timesSeen = new Map();
  lastOfKey = new Map();
  members = new Array(MEMBERS).fill(0);
  outOfOrder = 0;
  wrong = 0;

  add(member, message) {
    this.members[member]++;
    if (!message.headers?.number) {
      this.wrong++;
      return;
    }
    const n = numberOf(message);
    const key = message.key?.toString();
    if (key !== `key-${n % 100}` || !message.value.toString().startsWith(`${n}:`)) this.wrong++;
    const seen = this.timesSeen.get(n) ?? 0;
    this.timesSeen.set(n, seen + 1);
    if (seen === 0) {
      if (n < (this.lastOfKey.get(key) ?? -1)) this.outOfOrder++;
      this.lastOfKey.set(key, n);
    }
  }

  isOver() {
    return this.timesSeen.size >= args.count || Date.now() > deadline;
  }

  say(more) {
    let repeated = 0;
    for (const times of this.timesSeen.values()) repeated += times - 1;
    const { members, wrong } = this;
    say({ distinct: this.timesSeen.size, repeated, out_of_order: this.outOfOrder, wrong, members, ...more });
  }
}

/** A promise that fails when the consumer gives up; some crashes it mends by itself. */
function crash(consumer) {
  return new Promise((_, reject) => consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error)));
}

async function produce() {
  const producer = kafka("kafkajs").producer({ idempotent: true });
  await producer.connect();
  const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP }[args.compression];
  if (compression === undefined) throw new Error(`kafkajs itself has no ${args.compression}`);
  const portion = Math.max(1, Math.min(500, Math.floor(500_000 / args.size)));
  for (let done = 0; done < args.count; done += portion) {
    const messages = [];
    for (let n = args.first + done; n < args.first + Math.min(args.count, done + portion); n++) {
      const headers = { number: `${n}`, client: "kafkajs" };
      messages.push({ key: `key-${n % 100}`, value: `${n}:`.padEnd(args.size, "x"), headers });
    }
    await producer.send({ topic: args.topic, compression, messages });
  }
  await producer.disconnect();
  say({ produced: args.count });
}

async function read() {
  const counts = new Tally();
  const consumer = kafka("reader").consumer({ groupId: `reader-${process.pid}-${Date.now()}`, ...TIMES });
  const crashed = crash(consumer);
  await consumer.connect();
  await consumer.subscribe({ topic: args.topic, fromBeginning: true });
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => counts.add(0, message) });
  while (!counts.isOver()) await Promise.race([pause(20), crashed]);
  await consumer.disconnect();
  counts.say();
}

/** Takes what comes and commits after each 50 records, until all members together have everything, or it is to leave. */
async function member(index, counts, joined) {
  const consumer = kafka("kafkajs").consumer({ groupId: args.group, ...TIMES });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => joined(index, payload.memberAssignment));
  const crashed = crash(consumer);
  await consumer.connect();
  await consumer.subscribe({ topic: args.topic, fromBeginning: true });
  let taken = 0;
  const isDone = () => counts.isOver() || (index === 2 && taken >= args["leave-after"]);
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, uncommittedOffsets }) => {
      for (let from = 0; from < batch.messages.length && !isDone(); from += 50) {
        const messages = batch.messages.slice(from, from + 50);
        for (const message of messages) counts.add(index, message);
        taken += messages.length;
        resolveOffset(messages.at(-1).offset);
        await commitOffsetsIfNecessary(uncommittedOffsets());
        await heartbeat();
      }
    },
  });
  while (!isDone()) await Promise.race([pause(20), crashed]);
  await consumer.disconnect();
}

async function group() {
  const counts = new Tally();
  const withPartitions = new Set();
  let saidReady = false;
  const joined = (index, assignment) => {
    if (Object.values(assignment).some((partitions) => partitions.length > 0)) withPartitions.add(index);
    else withPartitions.delete(index);
    if (withPartitions.size === MEMBERS && !saidReady) {
      saidReady = true;
      say({ event: "ready" });
    }
  };
  await Promise.all([...Array(MEMBERS).keys()].map((index) => member(index, counts, joined)));
  const admin = kafka("observer").admin();
  await admin.connect();
  const sum = (partitions) => partitions.reduce((total, { offset }) => total + Math.max(0, Number(offset)), 0);
  const [ofTopic] = await admin.fetchOffsets({ groupId: args.group, topics: [args.topic] });
  const end = sum(await admin.fetchTopicOffsets(args.topic));
  await admin.disconnect();
  counts.say({ committed: sum(ofTopic.partitions), end });
}

/** One member, until standard input ends. */
async function work() {
  const consumer = kafka("worker").consumer({ groupId: args.group, ...TIMES });
  const crashed = crash(consumer);
  const ended = new Promise((resolve) => process.stdin.resume().on("end", resolve));
  await consumer.connect();
  await consumer.subscribe({ topic: args.topic, fromBeginning: true });
  await consumer.run({
    autoCommitInterval: 500,
    eachBatch: async ({ batch }) => say({ took: batch.messages.map(numberOf) }),
  });
  await Promise.race([ended, crashed]);
  await consumer.disconnect();
}

const commands = { produce, read, group, work };
commands[process.argv[2]]().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  },
);
