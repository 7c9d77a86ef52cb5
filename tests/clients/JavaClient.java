import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** The Java client (kafka-clients). Commands, records and reports are those of tally.py. */
public final class JavaClient {
  static final int MEMBERS = 3;

  final Map<String, String> args = new HashMap<>();
  final Map<Integer, Integer> timesSeen = new HashMap<>();
  final Map<String, Integer> lastOfKey = new HashMap<>();
  final int[] members = new int[MEMBERS];
  final Set<Integer> withPartitions = new HashSet<>();
  boolean saidReady;
  int outOfOrder;
  int wrong;
  long deadline;

  public static void main(String[] argv) throws Exception {
    JavaClient client = new JavaClient();
    for (int i = 1; i + 1 < argv.length; i += 2) client.args.put(argv[i].substring(2), argv[i + 1]);
    client.deadline = System.nanoTime() + (long) (Double.parseDouble(client.arg("timeout", "60")) * 1e9);
    switch (argv[0]) {
      case "produce" -> client.produce();
      case "read" -> client.read();
      case "group" -> client.group();
      case "work" -> client.work();
      case "share" -> client.share();
      case "describe" -> client.describe();
      default -> throw new IllegalArgumentException(argv[0]);
    }
  }

  String arg(String name, String otherwise) {
    return args.getOrDefault(name, otherwise);
  }

  int number(String name, int otherwise) {
    return args.containsKey(name) ? Integer.parseInt(args.get(name)) : otherwise;
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  void produce() throws Exception {
    Properties config = new Properties();
    config.put("bootstrap.servers", args.get("bootstrap"));
    config.put("compression.type", arg("compression", "none"));
    config.put("max.request.size", Math.max(1 << 20, number("size", 100) * 2));
    config.put("linger.ms", 5);
    int first = number("first", 0);
    int count = number("count", 0);
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    try (Producer<byte[], byte[]> producer =
        new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
      for (int n = first; n < first + count; n++) {
        StringBuilder value = new StringBuilder(n + ":");
        while (value.length() < number("size", 100)) value.append('x');
        var message =
            new ProducerRecord<byte[], byte[]>(
                args.get("topic"), bytes("key-" + n % 100), bytes(value.toString()));
        message.headers().add("number", bytes("" + n)).add("client", bytes("java"));
        sent.add(producer.send(message));
      }
      producer.flush();
      for (Future<RecordMetadata> result : sent) result.get();
    }
    say("{\"produced\": " + count + "}");
  }

  KafkaConsumer<byte[], byte[]> consumer() {
    return consumer(new Properties());
  }

  /** A consumer that is configured as all are, but for what {@code own} says. */
  KafkaConsumer<byte[], byte[]> consumer(Properties own) {
    Properties config = new Properties();
    config.put("bootstrap.servers", args.get("bootstrap"));
    if (args.containsKey("group")) config.put("group.id", args.get("group"));
    config.put("auto.offset.reset", "earliest");
    config.put("enable.auto.commit", "false");
    config.put("max.poll.records", "50");
    if (args.containsKey("protocol")) {
      // Of the consumer group protocol (KIP-848), in which the broker says how long a session is.
      config.put("group.protocol", args.get("protocol"));
    } else {
      config.put("session.timeout.ms", "10000");
      config.put("heartbeat.interval.ms", "1000");
    }
    // Lets a test choose the assignor that moves partitions one by one (KIP-429).
    if (args.containsKey("assignor")) config.put("partition.assignment.strategy", args.get("assignor"));
    config.putAll(own);
    return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
  }

  List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer) {
    List<TopicPartition> found = new ArrayList<>();
    for (PartitionInfo info : consumer.partitionsFor(args.get("topic")))
      found.add(new TopicPartition(info.topic(), info.partition()));
    return found;
  }

  int take(KafkaConsumer<byte[], byte[]> consumer, int member) {
    ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
    for (ConsumerRecord<byte[], byte[]> message : records) add(member, message);
    return records.count();
  }

  synchronized void add(int member, ConsumerRecord<byte[], byte[]> message) {
    members[member]++;
    Header header = message.headers().lastHeader("number");
    if (header == null) {
      wrong++;
      return;
    }
    int n = Integer.parseInt(new String(header.value(), StandardCharsets.UTF_8));
    String key = new String(message.key(), StandardCharsets.UTF_8);
    String value = new String(message.value(), StandardCharsets.UTF_8);
    if (!key.equals("key-" + n % 100) || !value.startsWith(n + ":")) wrong++;
    if (timesSeen.merge(n, 1, Integer::sum) == 1) {
      if (n < lastOfKey.getOrDefault(key, -1)) outOfOrder++;
      lastOfKey.put(key, n);
    }
  }

  synchronized boolean complete() {
    return timesSeen.size() >= number("count", 0);
  }

  boolean over() {
    return complete() || System.nanoTime() > deadline;
  }

  synchronized void assigned(int member, boolean any) {
    if (any) withPartitions.add(member);
    if (withPartitions.size() == MEMBERS && !saidReady) {
      saidReady = true;
      say("{\"event\": \"ready\"}");
    }
  }

  void read() {
    try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
      List<TopicPartition> partitions = partitions(consumer);
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      while (!over()) take(consumer, 0);
    }
    result("");
  }

  void work(int member) {
    try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
      consumer.subscribe(
          List.of(args.get("topic")),
          new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
              consumer.commitSync();
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
              assigned(member, !consumer.assignment().isEmpty());
            }
          });
      int taken = 0;
      while (!over()) {
        int took = take(consumer, member);
        taken += took;
        if (took > 0 && member == 1) consumer.commitAsync();
        else if (took > 0) consumer.commitSync();
        if (member == 2 && taken >= number("leave-after", 100)) break;
      }
      consumer.commitSync();
    }
  }

  /** One member, until standard input ends. */
  void work() throws Exception {
    Properties own = new Properties();
    own.put("client.id", "worker");
    own.put("enable.auto.commit", "true");
    own.put("auto.commit.interval.ms", "500");
    try (KafkaConsumer<byte[], byte[]> consumer = consumer(own)) {
      consumer.subscribe(List.of(args.get("topic")));
      Thread ended = inputEnded();
      while (ended.isAlive()) {
        List<String> numbers = new ArrayList<>();
        for (ConsumerRecord<byte[], byte[]> message : consumer.poll(Duration.ofMillis(200)))
          numbers.add(new String(message.headers().lastHeader("number").value(), StandardCharsets.UTF_8));
        if (!numbers.isEmpty()) say("{\"took\": [" + String.join(", ", numbers) + "]}");
      }
    }
  }

  /** A group, with the calls and the columns of Apache Kafka's kafka-consumer-groups --describe --members. */
  void describe() throws Exception {
    String group = args.get("group");
    Properties config = new Properties();
    config.put("bootstrap.servers", args.get("bootstrap"));
    try (Admin admin = Admin.create(config)) {
      ConsumerGroupDescription described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
      Map<TopicPartition, OffsetAndMetadata> committed =
          admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
      Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
      for (TopicPartition partition : committed.keySet()) asked.put(partition, OffsetSpec.latest());
      var ends = admin.listOffsets(asked).all().get();
      String row = "%-20s %-10s %-9s %-14s %-14s %-5s%n";
      System.out.printf(row, "GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG");
      for (TopicPartition partition : committed.keySet()) {
        long at = committed.get(partition).offset();
        long end = ends.get(partition).offset();
        System.out.printf(row, group, partition.topic(), partition.partition(), at, end, end - at);
      }
      String member = "%-20s %-45s %-15s %-15s %-11s %s%n";
      System.out.printf("%n" + member, "GROUP", "CONSUMER-ID", "HOST", "CLIENT-ID", "#PARTITIONS", "ASSIGNMENT");
      for (MemberDescription found : described.members()) {
        List<String> assigned = new ArrayList<>();
        for (TopicPartition partition : found.assignment().topicPartitions()) assigned.add(partition.toString());
        Collections.sort(assigned);
        System.out.printf(
            member, group, found.consumerId(), found.host(), found.clientId(), assigned.size(), String.join(",", assigned));
      }
      System.out.printf("%n%-20s %-10s %s%n", "GROUP", "STATE", "#MEMBERS");
      System.out.printf("%-20s %-10s %d%n", group, described.groupState(), described.members().size());
    }
  }

  /** Alive until standard input ends. */
  static Thread inputEnded() {
    Thread ended =
        new Thread(
            () -> {
              try {
                System.in.readAllBytes();
              } catch (java.io.IOException error) {
                // It ended all the same.
              }
            });
    ended.setDaemon(true);
    ended.start();
    return ended;
  }

  /** One member of a share group. */
  void share() throws Exception {
    Properties config = new Properties();
    config.put("bootstrap.servers", args.get("bootstrap"));
    config.put("group.id", args.get("group"));
    config.put("client.id", "worker");
    config.put("share.acknowledgement.mode", "explicit");
    try (KafkaShareConsumer<byte[], byte[]> consumer =
        new KafkaShareConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of(args.get("topic")));
      Thread ended = inputEnded();
      while (ended.isAlive()) {
        List<String> accepted = new ArrayList<>();
        List<String> rejected = new ArrayList<>();
        for (ConsumerRecord<byte[], byte[]> message : consumer.poll(Duration.ofMillis(200))) {
          int n = Integer.parseInt(new String(message.headers().lastHeader("number").value(), StandardCharsets.UTF_8));
          boolean again = message.deliveryCount().orElseThrow() > 1;
          if (n % 100 == 7) {
            consumer.acknowledge(message, AcknowledgeType.REJECT);
            rejected.add("" + n);
          } else if (n % 10 == 3 && !again) {
            consumer.acknowledge(message, AcknowledgeType.RELEASE);
          } else {
            consumer.acknowledge(message, AcknowledgeType.ACCEPT);
            accepted.add("" + n);
          }
        }
        // Said first: whoever is killed in between has at least not kept it to itself.
        if (!accepted.isEmpty() || !rejected.isEmpty())
          say("{\"took\": [" + String.join(", ", accepted) + "], \"rejected\": [" + String.join(", ", rejected) + "]}");
        for (Optional<KafkaException> failed : consumer.commitSync().values())
          if (failed.isPresent()) throw failed.get();
      }
    }
  }

  void group() throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(MEMBERS);
    List<Future<?>> running = new ArrayList<>();
    for (int member = 0; member < MEMBERS; member++) {
      int index = member;
      running.add(threads.submit(() -> work(index)));
    }
    threads.shutdown();
    for (Future<?> work : running) work.get();
    try (KafkaConsumer<byte[], byte[]> observer = consumer()) {
      List<TopicPartition> partitions = partitions(observer);
      long committed = 0;
      for (OffsetAndMetadata found : observer.committed(new HashSet<>(partitions)).values())
        committed += found == null ? 0 : found.offset();
      long end = observer.endOffsets(partitions).values().stream().mapToLong(Long::longValue).sum();
      result(", \"committed\": " + committed + ", \"end\": " + end);
    }
  }

  synchronized void result(String more) {
    int repeated = timesSeen.values().stream().mapToInt(times -> times - 1).sum();
    say(
        "{\"distinct\": " + timesSeen.size() + ", \"repeated\": " + repeated + ", \"out_of_order\": "
            + outOfOrder + ", \"wrong\": " + wrong + ", \"members\": " + Arrays.toString(members) + more + "}");
  }

  static void say(String line) {
    System.out.println(line);
  }
}
