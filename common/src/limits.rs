//! Every bound and default of both binaries, units last. Nothing grows without a bound: a channel, map, buffer or batch
//! that has none listed here is a mistake.

use std::num::NonZeroU32;
use std::time::Duration;

pub mod dataset;
pub mod object;
pub mod shared;
pub mod tier;

// Names.

/// Apache Kafka's limit for a topic's name.
pub const KAFKA_TOPIC_NAME_CHARS: usize = 249;
/// The longest edge id.
pub const EDGE_ID_CHARS: usize = 64;

// Kafka protocol.

/// The largest Kafka request frame (`socket.request.max.bytes` in Apache Kafka).
pub const KAFKA_FRAME_BYTES: usize = 100 * 1024 * 1024;
/// The largest record batch taken by default (`max.message.bytes`).
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024 + 12;
/// Requests of one Kafka connection that may be in work at once; the next one is not read before one is answered.
pub const KAFKA_PIPELINED_REQUESTS: usize = 64;
/// Kafka connections at once.
pub const KAFKA_CONNECTIONS: usize = 10_000;
/// A Kafka connection without a request for this long is closed (`connections.max.idle.ms`).
pub const KAFKA_IDLE: Duration = Duration::from_secs(600);
/// The least that may be configured for [`KAFKA_IDLE`]: no client would get an answer otherwise.
pub const KAFKA_IDLE_LEAST: Duration = Duration::from_secs(1);
/// The id of the one broker that there is.
pub const KAFKA_NODE_ID: i32 = 1;
/// Array elements and tagged fields in one Kafka request, which bounds what decoding may allocate beyond the frame.
pub const KAFKA_FRAME_ELEMENTS: usize = 1_000_000;
/// What one array element of a request may take when decoded; charged to the request memory with the frame.
pub const KAFKA_ELEMENT_BYTES: usize = 160;
/// Frames of all Kafka connections that are being read or worked on, together with their decoded elements.
pub const KAFKA_REQUEST_MEMORY_BYTES: usize = 512 * 1024 * 1024;
/// Large answers of all Kafka connections that are being built or sent.
pub const KAFKA_RESPONSE_MEMORY_BYTES: usize = 512 * 1024 * 1024;
/// The first bytes of a frame, which are not charged to the request memory, so that small requests always get through.
pub const KAFKA_FREE_FRAME_BYTES: usize = 4 * 1024;
/// The first elements of a request, which are not charged either.
pub const KAFKA_FREE_FRAME_ELEMENTS: usize = 64;
/// A client that takes nothing of an answer for this long is disconnected.
pub const KAFKA_SEND_TIMEOUT: Duration = Duration::from_secs(120);
/// The same while answers have taken the memory that there is but for this part of it, so that clients that take nothing do not keep the
/// others waiting.
pub const KAFKA_SEND_TIMEOUT_SHORT: Duration = Duration::from_secs(5);
/// See [`KAFKA_SEND_TIMEOUT_SHORT`].
pub const KAFKA_SHORT_OF_MEMORY: usize = 4;
/// A frame may take this long, and one second more for each [`KAFKA_FRAME_BYTES_PER_SECOND`]; then its connection is
/// closed, so that a slow sender does not hold memory for ever.
pub const KAFKA_FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// The slowest rate at which a Kafka client may send a frame or take an answer.
pub const KAFKA_FRAME_BYTES_PER_SECOND: usize = 16 * 1024;
/// Answers of one Kafka connection that wait to be sent; the next request is not begun before there is room.
pub const KAFKA_QUEUED_ANSWER_BYTES: usize = 1024 * 1024;
/// One read of a Fetch takes at most this part of the answer memory that is left.
pub const FETCH_MEMORY_SHARE: usize = 8;
/// But never less than this.
pub const FETCH_LEAST_SHARE_BYTES: usize = 64 * 1024;
/// Encoded lists of all topics kept for Metadata, one for each version of it that clients use: how many, and their bytes together.
pub const KAFKA_TOPIC_LISTINGS: usize = 4;
/// See [`KAFKA_TOPIC_LISTINGS`].
pub const KAFKA_TOPIC_LISTING_BYTES: usize = 96 * 1024 * 1024;
/// CreateTopics answers with the complete configuration of each topic for so many topics in a request, else with what they set.
pub const FULLY_DESCRIBED_TOPICS: usize = 100;
/// DescribeLogDirs answers that are built at the same time.
pub const LOG_DIR_LISTINGS: usize = 2;
/// The first bytes of an answer other than Fetch's, which are not charged to the answer memory, so that small answers always get
/// through.
pub const KAFKA_FREE_ANSWER_BYTES: usize = 16 * 1024;
/// An answer other than Fetch's takes at most this part of the answer memory.
pub const KAFKA_ANSWER_SHARE: usize = 2;
/// What the broker's own configuration takes of memory in a DescribeConfigs answer: a few short entries.
pub const DESCRIBED_BROKER_BYTES: usize = 4 * 1024;
/// Partitions in one DescribeTopicPartitions answer (`max.request.partition.size.limit`).
pub const DESCRIBED_PARTITIONS: i32 = 2000;
/// The longest wait of a Fetch for new records, whatever the client asks for.
pub const FETCH_WAIT: Duration = Duration::from_secs(300);
/// How long a request waits for memory before its connection is closed.
pub const KAFKA_MEMORY_WAIT: Duration = Duration::from_secs(30);
/// How long connections may finish what they have begun after SIGTERM.
pub const KAFKA_DRAIN: Duration = Duration::from_secs(10);
/// The largest answer to one Fetch, whatever the client asks for (`fetch.max.bytes`).
pub const FETCH_RESPONSE_BYTES: usize = 55 * 1024 * 1024;

// Records.

/// Headers of one record. Apache Kafka has no limit; one here keeps a record of two-byte headers from taking thirty times its
/// size in memory.
pub const RECORD_HEADERS: usize = 65_536;

// Consumer groups.

/// Groups that one broker coordinates.
pub const GROUPS: usize = 100_000;
/// Members of one group (`group.max.size`).
pub const GROUP_MEMBERS: usize = 10_000;
/// Subscriptions and assignments of all members of one group.
pub const GROUP_BYTES: usize = 64 * 1024 * 1024;
/// Subscriptions and assignments of all members of all groups; beyond it nobody joins.
pub const GROUPS_BYTES: usize = 512 * 1024 * 1024;
/// The longest group id, member id or instance id.
pub const GROUP_ID_BYTES: usize = 1024;
/// The longest text stored with a committed offset (`offset.metadata.max.bytes`).
pub const OFFSET_METADATA_BYTES: usize = 4096;
/// The shortest session timeout of a group member (`group.min.session.timeout.ms`).
pub const GROUP_SESSION_MIN: Duration = Duration::from_secs(6);
/// The longest session timeout of a group member (`group.max.session.timeout.ms`).
pub const GROUP_SESSION_MAX: Duration = Duration::from_secs(30 * 60);
/// The shortest wait of a rebalance for its members, whatever they ask for.
pub const GROUP_REBALANCE_MIN: Duration = Duration::from_millis(100);
/// The longest wait of a rebalance for its members, whatever they ask for.
pub const GROUP_REBALANCE_MAX: Duration = Duration::from_secs(3600);
/// How long a start waits for a lock that another process has: one that was killed takes some seconds to vanish.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often it tries meanwhile.
pub const LOCK_LOOK: Duration = Duration::from_millis(50);
/// How often `/ready` looks at the store.
pub const STORE_HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// How often offsets that nobody needs are looked for.
pub const GROUP_EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
/// How often partitions in memory are asked whether there is something to delete or to compact. Costs no read where nothing
/// changed (`log.cleaner.backoff.ms`).
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest `[storage] upkeep_interval_ms`.
pub const UPKEEP_INTERVAL_MIN_MS: u64 = 100;
/// The walk over the partitions that are not in memory starts anew at most this often (`log.retention.check.interval.ms`).
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
/// Topics that were configured anew, as far as they are remembered for who looks after their partitions. After more of them between two
/// looks ([`UPKEEP_INTERVAL`]), all partitions in memory are looked at once.
pub const CONFIGURED_ANEW: usize = 4096;
/// How often the walk over partitions that are not in memory takes a step.
pub const UPKEEP_STEP_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions that one step of the walk looks at. A million take 83 minutes, for a few milliseconds of work a second.
pub const UPKEEP_STEP_PARTITIONS: usize = 200;
/// Partitions in memory that are taken from the registry at once to be looked at.
pub const UPKEEP_PAGE: usize = 256;
/// How long a new group waits for more members before its first generation (`group.initial.rebalance.delay.ms`;
/// 3 s in Apache Kafka, less here since every test and every small deployment pays it).
pub const GROUP_INITIAL_DELAY: Duration = Duration::from_millis(500);
/// How long offsets of a group without members are kept (`offsets.retention.minutes`).
pub const GROUP_OFFSET_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The least that may be configured for [`GROUP_OFFSET_RETENTION`], as in Apache Kafka: a consumer that is started again has to find its
/// place.
pub const GROUP_OFFSET_RETENTION_LEAST: Duration = Duration::from_secs(60);

// HTTP listeners (admin, uplink), TLS and logs.

/// A request's header that is not complete after this long ends the connection.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest header of an HTTP request.
pub const HTTP_HEADER_BYTES: usize = 64 * 1024;
/// An HTTP/2 peer that is silent is asked for a sign of life this often.
pub const HTTP_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a shutdown waits for HTTP requests in work.
pub const HTTP_DRAIN: Duration = Duration::from_secs(10);
/// A TLS handshake that takes longer ends the connection.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections of the admin listener at once.
pub const ADMIN_CONNECTIONS: usize = 64;
/// The largest request body of the admin listener.
pub const ADMIN_BODY_BYTES: usize = 1024 * 1024;
/// An admin request that is not answered after this long gets 408.
pub const ADMIN_REQUEST: Duration = Duration::from_secs(30);
/// What takes long is answered with 202 after this time, and goes on: [`ADMIN_REQUEST`] is not to end the wait.
pub const ADMIN_WAIT: Duration = Duration::from_secs(20);
/// HTTP/2 window of an admin connection.
pub const ADMIN_HTTP2_WINDOW_BYTES: u32 = 256 * 1024;
/// Requests in work at once on one HTTP/2 admin connection.
pub const ADMIN_HTTP2_STREAMS: u32 = 16;
/// The longest log directives taken.
pub const LOG_FILTER_BYTES: usize = 4096;

// MQTT.

/// The largest MQTT packet taken, and announced as Maximum Packet Size to MQTT 5 clients.
pub const MQTT_PACKET_BYTES: usize = 1024 * 1024;
/// MQTT connections at once.
pub const MQTT_CONNECTIONS: usize = 10_000;
/// A connection that has not sent CONNECT after this long is closed.
pub const MQTT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Receive Maximum that the server announces: QoS 1 and 2 publishes of one client in flight.
pub const MQTT_RECEIVE_MAXIMUM: u16 = 1024;
/// Topic Alias Maximum that the server announces.
pub const MQTT_TOPIC_ALIAS_MAXIMUM: u16 = 64;
/// Messages kept for one offline or slow session.
pub const MQTT_SESSION_QUEUE_MESSAGES: usize = 10_000;
/// Bytes kept for one offline or slow session.
pub const MQTT_SESSION_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Sessions kept, connected or not.
pub const MQTT_SESSIONS: usize = 50_000;
/// Subscriptions of one session.
pub const MQTT_SUBSCRIPTIONS_PER_SESSION: usize = 1_000;
/// QoS 1 and 2 messages in flight to one client, whatever Receive Maximum it announced.
pub const MQTT_INFLIGHT_MESSAGES: u16 = 256;
/// Bytes handed out for one connection and not yet written, above which it gets no more messages and is not read.
pub const MQTT_CONNECTION_BACKLOG_BYTES: usize = 256 * 1024;
/// Publishes of one connection that wait for the queue's sync, above which the connection is not read.
pub const MQTT_PENDING_PUBLISHES: usize = 1024;
/// Bytes of all publishes that wait for the queue's sync, above which no MQTT connection is read.
pub const MQTT_PENDING_BYTES: usize = 8 * 1024 * 1024;
/// The longest client identifier taken.
pub const MQTT_CLIENT_ID_BYTES: usize = 256;
/// Stored publishes after which the state's queue position is persisted even if the state did not change, so that the
/// replay at start-up stays short.
pub const MQTT_REPLAY_PUBLISHES: u64 = 4096;
/// Retained messages kept.
pub const MQTT_RETAINED_MESSAGES: usize = 100_000;
/// Bytes of all retained messages' topics and payloads.
pub const MQTT_RETAINED_BYTES: usize = 64 * 1024 * 1024;
/// Topics under `$SYS/` at which a server says something of itself.
pub const MQTT_SYS_TOPICS: usize = 100;
/// Bytes of all topics and payloads under `$SYS/`.
pub const MQTT_SYS_BYTES: usize = 64 * 1024;
/// Retained messages that are looked at for new subscriptions before others get their turn: a millisecond or so.
pub const MQTT_RETAINED_STEPS: usize = 1024;
/// When there are too many retained messages, expired ones are looked for at most once in this time.
pub const MQTT_RETAINED_SWEEP: Duration = Duration::from_secs(10);
/// Bytes of messages queued or in flight for all sessions together.
pub const MQTT_ALL_SESSIONS_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of topic names that one connection's aliases stand for.
pub const MQTT_TOPIC_ALIAS_BYTES: usize = 64 * 1024;
/// The longest topic filter that a session may subscribe to.
pub const MQTT_FILTER_BYTES: usize = 1024;
/// Levels of a topic name or filter.
pub const MQTT_TOPIC_LEVELS: usize = 128;
/// The longest session expiry honoured; a longer one is cut to it (and CONNACK says so, MQTT 5 section 3.2.2.3.2).
pub const MQTT_SESSION_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

// The edge's queue.

/// Lanes by default: one for each route priority.
pub const QUEUE_LANES: u8 = 3;
/// The most lanes.
pub const QUEUE_LANES_MAX: u8 = 8;
/// What the segments of all lanes may take on disk by default (`[queue] max_bytes`).
pub const QUEUE_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// The least that `[queue] max_bytes` may be.
pub const QUEUE_LEAST_MAX_BYTES: u64 = 1024 * 1024;
/// A segment is closed when it has reached this size; what is trimmed or dropped is always a whole segment.
pub const QUEUE_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// The largest record, its own framing included. More than the largest MQTT packet with all its properties re-encoded.
pub const QUEUE_RECORD_BYTES: usize = 4 * 1024 * 1024;
/// Appends that wait for the disk; beyond this an append is refused as busy.
pub const QUEUE_PENDING_BYTES: usize = 8 * 1024 * 1024;
/// The longest that an append after a pause waits for others to share its sync.
pub const QUEUE_GATHER: Duration = Duration::from_millis(2);
/// It waits for this fraction of what the last sync took.
pub const QUEUE_GATHER_FRACTION: u32 = 8;
/// Buffers larger than this are given back to the system after use.
pub const QUEUE_KEPT_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes that the start-up replay reads ahead.
pub const QUEUE_REPLAY_BYTES: usize = 256 * 1024;
/// Records that the start-up replay reads ahead.
pub const QUEUE_REPLAY_RECORDS: usize = 1024;
/// Boots of which the queue remembers when they began.
pub const QUEUE_BOOTS_REMEMBERED: usize = 32;
/// Separate ranges of dropped sequences that a cursor lists; beyond this, neighbours are merged.
pub const QUEUE_CURSOR_SKIPS: usize = 64;
/// Damaged segments kept as evidence in one lane after their records were sent; the oldest go first.
pub const QUEUE_BAD_SEGMENTS_KEPT: usize = 4;

// Edge state (sessions and retained messages in redb).

/// Memory that redb may use for pages read and written.
pub const STATE_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Changes that wait for the disk; above it the gateway takes no more input.
pub const STATE_PENDING_BYTES: usize = 8 * 1024 * 1024;
/// Change sets that wait for the disk; above it the gateway takes no more input.
pub const STATE_PENDING_CHANGE_SETS: usize = 16 * 1024;
/// Damaged state files kept beside the good one; the last name is used again when all are taken.
pub const STATE_QUARANTINED_FILES: usize = 9;
/// The first pause after a failed commit.
pub const STATE_RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest pause between attempts to commit.
pub const STATE_RETRY_MAX: Duration = Duration::from_secs(5);
/// Stack of a thread that only writes to a disk.
pub const STORAGE_THREAD_STACK_BYTES: usize = 512 * 1024;

// Store and log.

/// Bytes of writes that wait for the store's writer, of all partitions together.
pub const STORE_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How often a write is tried that finds the queue full though there was room a moment ago.
pub const STORE_BUSY_ATTEMPTS: u32 = 32;
/// The pause before the second attempt; it doubles with each.
pub const STORE_BUSY_PAUSE: Duration = Duration::from_millis(1);
/// The longest of these pauses.
pub const STORE_BUSY_PAUSE_MOST: Duration = Duration::from_secs(1);
/// The most bytes that one synced write group carries (one larger batch goes alone).
pub const STORE_GROUP_BYTES: usize = 16 * 1024 * 1024;
/// A write of this size at most that removes something is taken for one that makes room on a full disk.
pub const STORE_FREEING_WRITE_BYTES: usize = 64 * 1024;
/// Values of this size and more lie in segment files, apart from the keys.
pub const STORE_SEPARATED_BYTES: usize = 512;
/// Values below this size are copied into one buffer for writing; larger ones are written from where they are.
pub const STORE_COPIED_VALUE_BYTES: usize = 32 * 1024;
/// The size at which a new segment is begun.
pub const STORE_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;
/// What `[storage] segment_bytes` may be: places within a segment have 32 bits, and a segment grows beyond it by one write.
pub const STORE_SEGMENT_BYTES_RANGE: std::ops::RangeInclusive<u64> =
    1024 * 1024..=1024 * 1024 * 1024;
/// What the index of the segments keeps in memory before it goes to a table file.
pub const STORE_INDEX_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Segment files held open for reading.
pub const STORE_OPEN_SEGMENTS: usize = 128;
/// The values written last, kept in memory for those who read at the end of logs.
pub const STORE_RECENT_BYTES: usize = 32 * 1024 * 1024;
/// What lies between two values in a segment and is read with them rather than skipped.
pub const STORE_READ_GAP_BYTES: u64 = 8 * 1024;
/// A range of so many keys at most is deleted key by key in the index of the segments.
pub const STORE_POINT_DELETIONS: usize = 1024;
/// Dead bytes that segments may hold before their live ones are moved: this, and a fifth of what lives.
pub const STORE_DEAD_BYTES: u64 = 512 * 1024 * 1024;
/// Live values that one write moves out of a mostly dead segment.
pub const STORE_MOVED_BYTES: usize = 4 * 1024 * 1024;
/// The most values that one such write moves.
pub const STORE_MOVED_VALUES: usize = 1024;
/// On a full disk the segment that is written to is sealed before it is full, if it is larger than this: what was deleted from it can then
/// be given back.
pub const STORE_SEALED_EARLY_BYTES: u64 = 64 * 1024;
/// The least time between two counts of what lives.
pub const STORE_COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// Counting what lives may take one part in so many of a core's time.
pub const STORE_COUNT_SHARE: u32 = 20;
/// The same while segments fill up: one part in so many, besides the counting itself.
pub const STORE_GROWING_COUNT_SHARE: u32 = 4;
/// Free bytes on the disk below which the store takes no writes, so that its background work can still finish.
pub const STORE_RESERVED_DISK_BYTES: u64 = 256 * 1024 * 1024;
/// The most items of one page of a scan.
pub const STORE_SCAN_ITEMS: usize = 4096;
/// The most bytes of one page of a scan over small values.
pub const STORE_SCAN_BYTES: usize = 4 * 1024 * 1024;
/// Values of this size and more are kept in blob files, apart from the keys.
pub const STORE_MIN_BLOB_BYTES: u64 = 4 * 1024;
/// The size at which a new blob file is begun.
pub const STORE_BLOB_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Reads that may wait for the disk at once.
pub const STORE_CONCURRENT_READS: usize = 64;
/// A table file that was not compacted for this long is, so that what was deleted gives its space back.
pub const STORE_COMPACTION_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// The store's cache of blocks read from disk.
pub const STORE_BLOCK_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Written data kept in memory before it goes to a table file.
pub const STORE_WRITE_BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Files that the store holds open.
pub const STORE_OPEN_FILES: i32 = 512;
/// What the state of partitions takes of memory, all together: those not in use make room when it is reached.
pub const PARTITION_STATE_BYTES: usize = 128 * 1024 * 1024;
/// A partition that nobody used for this long gives its memory back.
pub const PARTITION_IDLE: Duration = Duration::from_secs(600);
/// The same, of partitions of volatile modes, when there is no room for one more.
pub const PARTITION_IDLE_WHEN_FULL: Duration = Duration::from_secs(1);
/// Idle partitions of volatile modes that are brought to rest at once: so many small writes share a sync or two.
pub const SETTLED_AT_ONCE: usize = 512;
/// Idempotent producers remembered for one partition; beyond it the one idle for longest is forgotten.
pub const PRODUCERS_PER_PARTITION: usize = 4096;
/// An idempotent producer that has not written for this long is forgotten (`producer.id.expiration.ms`).
pub const PRODUCER_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// Edge lanes whose position is kept in memory for one partition; others are read from the store.
pub const CACHED_ORIGINS_PER_PARTITION: usize = 4096;
/// Bytes of batches that one entry of the time index covers.
pub const LOG_CHUNK_BYTES: usize = 1024 * 1024;
/// Entries of the time index that are read at once where the first ones mostly decide.
pub const FEW_CHUNKS: usize = 64;
/// Keys of a dirty log that compaction remembers at once, with their offsets (`log.cleaner.dedupe.buffer.size`): 900,000. Where
/// there are more, it takes several passes. There is one such map.
pub const COMPACTION_MAP_BYTES: usize = 32 * 1024 * 1024;
/// Partitions that wait to be compacted, and as many to be archived; others are offered again.
pub const PARTITION_QUEUE: usize = 1024;
/// A partition that could not be compacted, since a batch of it cannot be decoded, is tried again after this time.
pub const COMPACTION_RETRY: Duration = Duration::from_secs(3600);
/// Memory for batches that the store does not have, of all partitions together (`[storage] memory_bytes`): all of a `memory` topic, what
/// `hybrid` has not written yet.
pub const UNSTORED_BYTES: usize = 128 * 1024 * 1024;
/// The least that `[storage] memory_bytes` may be.
pub const UNSTORED_BYTES_MIN: usize = 1024 * 1024;
/// What a batch in memory takes besides its bytes.
pub const UNSTORED_BATCH_OVERHEAD_BYTES: usize = 96;
/// When the memory is used up, this fraction of it is freed at once.
pub const UNSTORED_FREED_FRACTION: usize = 16;
/// Of one partition in `hybrid`: batches that are not written yet. Beyond it appends wait.
pub const WRITE_BEHIND_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of batches that one write carries when what a partition has in memory only is written out.
pub const WRITE_OUT_BYTES: usize = 8 * 1024 * 1024;
/// How long `hybrid` may hold what was acknowledged before it is written (`robustmq.flush.ms`).
pub const WRITE_BEHIND: Duration = Duration::from_millis(200);
/// The shortest `robustmq.flush.ms`.
pub const WRITE_BEHIND_MIN: Duration = Duration::from_millis(1);
/// The longest `robustmq.flush.ms`.
pub const WRITE_BEHIND_MAX: Duration = Duration::from_secs(60);
/// The pause after a failed write-behind.
pub const WRITE_BEHIND_RETRY: Duration = Duration::from_millis(250);
/// How long an append waits until `hybrid` has room again.
pub const WRITE_BEHIND_WAIT: Duration = Duration::from_secs(10);
/// How long a stop tries to write what is in memory only, where the disk is full.
pub const WRITE_OUT_AT_STOP: Duration = Duration::from_secs(10);
/// How long a stop waits for changes of topics, and deletions of records, that were begun.
pub const FINISH_AT_STOP: Duration = Duration::from_secs(10);
/// Partitions that are written out at once at a stop.
pub const WRITE_OUTS_AT_ONCE: usize = 64;
/// Offsets that a volatile mode reserves by one durable write. A crash skips what is left of them.
pub const OFFSET_BLOCK: i64 = 1 << 20;
/// Topics whose mode was changed that are remembered, so that a request on its way cannot change it back.
pub const CHANGED_MODES: usize = 65_536;
/// Producer ids, and other ids that are never used twice, reserved by one durable write.
pub const ID_BLOCK: u32 = 1000;
/// Deleted topics remembered so that a request on its way cannot bring one back.
pub const DROPPED_TOPICS: usize = 1_000_000;
/// How long they are remembered: longer than a request takes from looking a topic up to loading its partition.
pub const DROPPED_TOPIC_MEMORY: Duration = Duration::from_secs(60);
/// Deleted topics whose records are removed by one write.
pub const REMOVED_TOPICS: usize = 500;
/// A deleted topic with at most so many keys is removed key by key; ranges that were deleted make later reads slower.
pub const REMOVED_SINGLE_KEYS: usize = 64;
/// Removing deleted topics rests for so many times as long as it works.
pub const REMOVAL_REST: u32 = 3;
/// The pause before deleted topics are looked for again. Each look goes over the notes that went before, as long as the store has not
/// forgotten them.
pub const REMOVAL_PAUSE: Duration = Duration::from_millis(500);
/// The pause after removing deleted topics failed.
pub const REMOVAL_RETRY: Duration = Duration::from_secs(5);
/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC: i32 = 10_000;
/// Topics of which the expiry of offsets remembers whether they are there.
pub const EXPIRY_TOPICS: usize = 65_536;
/// What the topics that are kept in memory take; others are read from the store.
pub const TOPIC_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Active topics whose traffic is counted.
pub const TRACKED_TOPICS: usize = 65_536;
/// A topic without traffic for this long is not counted any more.
pub const TRAFFIC_IDLE: Duration = Duration::from_secs(600);
/// How often rates of topics are moved on.
pub const TRAFFIC_INTERVAL: Duration = Duration::from_secs(5);
/// Over what time rates are averaged.
pub const TRAFFIC_AVERAGE: Duration = Duration::from_secs(60);
/// The least time between two look-ups of what the busiest topics hold, and of their groups' lag.
pub const TOPIC_FIGURES_INTERVAL: Duration = Duration::from_secs(30);
/// The busiest topics that `/metrics` names by default (`[admin] metrics_topics`).
pub const METRICS_TOPICS: usize = 50;
/// And at most.
pub const METRICS_TOPICS_MAX: usize = 1000;
/// Groups that are looked at for lag.
pub const REPORTED_GROUPS: usize = 10_000;
/// Groups that `/metrics` shows of one topic.
pub const REPORTED_GROUPS_PER_TOPIC: usize = 20;
/// Groups that the admin API shows of one topic.
pub const SHOWN_GROUPS_PER_TOPIC: usize = 1000;
/// Topics on one page of a listing.
pub const TOPIC_PAGE: usize = 1000;
/// Configuration entries of one topic, and bytes of one value.
pub const TOPIC_CONFIG_VALUE_BYTES: usize = 4096;
// Sync between edge and cloud.

/// Lanes of one edge.
pub const SYNC_LANES: usize = 16;
/// User properties of one record (an MQTT packet has no own limit; with 1 MiB packets it could hold 200,000).
pub const SYNC_USER_PROPERTIES: usize = 1_024;
/// Records and skips of one batch.
pub const SYNC_BATCH_ENTRIES: usize = 16_384;
/// One batch before compression: at least four of the largest MQTT packets.
pub const SYNC_BATCH_BYTES: usize = 4 * 1024 * 1024 + 64 * 1024;
/// The `max.message.bytes` of topics that edges bring into being: the largest record that an edge can send, with room for
/// the names of its headers, so that what was acknowledged to a device is never too large for the cloud.
pub const EDGE_TOPIC_MESSAGE_BYTES: usize = SYNC_BATCH_BYTES + 256 * 1024;
/// One batch on the wire. zstd grows incompressible input by less than 1 %.
pub const SYNC_FRAME_BYTES: usize = SYNC_BATCH_BYTES + SYNC_BATCH_BYTES / 64;
/// Rejections of one lane that the cloud remembers until the edge confirms that it knows them.
pub const SYNC_REJECTIONS: usize = 2 * SYNC_BATCH_ENTRIES;
/// Edges of which the cloud holds state in memory.
pub const UPLINK_EDGES: usize = 100_000;
/// An edge that was quiet for so long may be dropped from memory to make room.
pub const UPLINK_IDLE: Duration = Duration::from_secs(600);
/// An edge that was quiet for so long is taken for gone: another gateway may have its id.
pub const UPLINK_SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a batch that came before its predecessor waits for it.
pub const UPLINK_GAP_WAIT: Duration = Duration::from_secs(2);
/// What an edge is told to wait when the cloud cannot take a batch.
pub const UPLINK_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Topics that one edge may bring into being by default.
pub const UPLINK_TOPICS_PER_EDGE: u64 = 10_000;
/// Older incarnations whose lanes are kept, so that a gateway that comes back can prove its history.
pub const UPLINK_INCARNATIONS_KEPT: u64 = 16;
/// Incarnations under which one half-applied batch may be tried, one after the other.
pub const UPLINK_OPEN_PREDECESSORS: usize = 256;
/// Partitions that one batch is appended to at once.
pub const UPLINK_CONCURRENT_APPENDS: usize = 64;
/// Connections of edges at once.
pub const UPLINK_CONNECTIONS: usize = 10_000;
/// Memory for batches as they come in, of all edges together, counted as it arrives; while a batch grows it may take twice as much.
pub const UPLINK_BODY_BYTES: usize = 128 * 1024 * 1024;
/// Batches that the cloud works on at once; each takes up to twice [`SYNC_BATCH_BYTES`] besides its body.
pub const UPLINK_BATCHES_IN_WORK: usize = 64;
/// A request of which nothing arrives for so long is given up: an edge does not wait longer either.
pub const UPLINK_BODY_STALL: Duration = Duration::from_secs(30);
/// The body of a hello or a heartbeat: each lane takes 35 bytes.
pub const UPLINK_SMALL_BODY_BYTES: usize = 4 * 1024;
/// HTTP/2 flow-control window of the uplink: two batches in flight on a long fat link.
pub const UPLINK_HTTP2_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Requests in work at once on one uplink connection.
pub const UPLINK_HTTP2_STREAMS: u32 = 32;
/// A sync request that is not answered after this long gets 408; long enough for a full batch over a very slow link.
pub const UPLINK_REQUEST: Duration = Duration::from_secs(600);
/// Refused edges that the cloud remembers, so that each is logged once.
pub const UPLINK_REFUSED_EDGES: usize = 10_000;
/// Edges that one answer to `edge list` holds.
pub const UPLINK_LISTED_EDGES: usize = 1_000;
/// A batch of the uplink is sent when it has this many records.
pub const UPLINK_BATCH_RECORDS: usize = 4_096;
/// Batches of one lane that are under way at once by default, and at most.
pub const UPLINK_WINDOW: usize = 2;
/// See [`UPLINK_WINDOW`].
pub const UPLINK_WINDOW_MAX: usize = 16;
/// How often the cloud hears that an edge is alive: three times within [`UPLINK_SESSION_TIMEOUT`].
pub const UPLINK_HEARTBEAT: Duration = Duration::from_secs(5);
/// The limit of the first pause after a failure of the uplink; it doubles with each further one.
pub const UPLINK_BACKOFF: Duration = Duration::from_millis(100);
/// The limit of the longest pause of the uplink.
pub const UPLINK_MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The least pause after a refusal that only a person can mend.
pub const UPLINK_REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// Hellos that follow on each other before the uplink pauses.
pub const UPLINK_HELLOS: usize = 6;
/// How long an edge waits for an answer of the cloud.
pub const UPLINK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an edge waits for a connection, and for the sign of life that it asks of a silent one.
pub const UPLINK_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 window of the edge: what the cloud may send unasked; answers are small.
pub const UPLINK_EDGE_WINDOW_BYTES: u32 = 256 * 1024;
/// Where a cloud takes what edges send, unless it is configured otherwise.
pub const UPLINK_PORT: u16 = 9440;
/// The edge's dead-letter files together.
pub const DEAD_LETTER_BYTES: u64 = 64 * 1024 * 1024;
/// Dead letters that the edge's status names, the newest.
pub const DEAD_LETTERS_SHOWN: usize = 5;
/// One answer on the wire.
pub const SYNC_ANSWER_BYTES: usize = SYNC_LANES * (SYNC_REJECTIONS * 9 + 128);
/// Bytes of one batch's records, decompressed, that a look-up by time, or the check of keys for a compacted topic, may take.
pub const DECOMPRESSED_BATCH_BYTES: usize = 256 * 1024 * 1024;
/// Batches that are decompressed at once for these.
pub const DECOMPRESSED_BATCHES_AT_ONCE: usize = 2;

// The edge's gateway.

/// MQTT connections at once by default: what a gateway with 512 MB of memory carries with ease.
pub const EDGE_MQTT_CONNECTIONS: usize = 1_000;
/// Inputs (packets, closed connections) on their way from connections to the hub.
pub const EDGE_HUB_INPUTS: usize = 1_024;
/// Inputs that the hub takes before it looks at anything else.
pub const EDGE_HUB_INPUTS_AT_ONCE: usize = 256;
/// How often the edge brings `$SYS/broker/...` up to date, as Mosquitto does.
pub const EDGE_SYS_INTERVAL_SECONDS: u32 = 10;
/// Packets of more than this are read only within `EDGE_LARGE_PACKETS_BYTES`.
pub const EDGE_SMALL_PACKET_BYTES: usize = 8 * 1024;
/// Memory for larger packets on their way from sockets to the hub, of all connections together.
pub const EDGE_LARGE_PACKETS_BYTES: usize = 8 * 1024 * 1024;
/// The first step in which memory is taken for a large packet; each further one is as much as has arrived.
pub const EDGE_LARGE_STEP_BYTES: usize = 64 * 1024;
/// A connection that has begun a large packet and then sends nothing for this long is closed: others wait for its share.
pub const EDGE_LARGE_READ: Duration = Duration::from_secs(20);
/// The slowest rate at which a large packet may come, on average; a slower one is given up. Slower than GPRS.
pub const EDGE_LARGE_BYTES_PER_SECOND: usize = 2 * 1024;
/// Read buffer of a connection.
pub const EDGE_READ_BUFFER_BYTES: usize = 4 * 1024;
/// Read buffer of a connection that filled the smaller one.
pub const EDGE_BUSY_READ_BUFFER_BYTES: usize = 16 * 1024;
/// Packets are written together up to this size.
pub const EDGE_WRITE_CHUNK_BYTES: usize = 64 * 1024;
/// A connection that takes nothing of a chunk for this long is closed.
pub const EDGE_WRITE_STALL: Duration = Duration::from_secs(60);
/// How long a closing connection may take to write what is left.
pub const EDGE_CLOSE: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that it does not spin.
pub const EDGE_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long stopping may wait for connections, the queue and the state.
pub const EDGE_DRAIN: Duration = Duration::from_secs(10);
/// How long a stored record may wait until the state that reflects it is saved, if nothing else has it saved earlier. Each
/// save wears the disk; what is not reflected is replayed at start-up.
pub const EDGE_CHECKPOINT: Duration = Duration::from_secs(60);
/// Rounds of PBKDF2 for a password of the users file: about 25 ms on a desktop core, 100 ms on a small gateway.
pub const EDGE_PASSWORD_ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).expect("not 0");
/// The most rounds that a line of the users file may ask for.
pub const EDGE_PASSWORD_ITERATIONS_MAX: NonZeroU32 = NonZeroU32::new(10_000_000).expect("not 0");
/// Age that the figures in status and metrics may have while the gateway is busy.
pub const EDGE_FIGURES: Duration = Duration::from_millis(200);
/// How long a batch of the uplink that is not full waits for more records.
pub const UPLINK_LINGER_MS: u64 = 20;
/// A batch of the uplink is sent when it has reached this size.
pub const UPLINK_BATCH_BYTES: usize = 1024 * 1024;
/// Batches do not get smaller than this on a link that is too slow for larger ones.
pub const UPLINK_LEAST_BATCH_BYTES: usize = 8 * 1024;
/// Threads of the edge that serve connections: a gateway has few cores.
pub const EDGE_WORKER_THREADS: usize = 2;
/// Threads of the edge for what blocks (file reads, name look-ups).
pub const EDGE_BLOCKING_THREADS: usize = 4;
/// Stack of each of them.
pub const EDGE_THREAD_STACK_BYTES: usize = 1024 * 1024;
