//! Of dataset topics.

use std::ops::RangeInclusive;
use std::time::Duration;

/// About as large as an extent is: what is fetched by one GET, cached and checked together. It ends at a record's boundary.
pub const EXTENT_BYTES: usize = 8 * 1024 * 1024;
/// It is less where the room of read-ahead would not hold so many,
pub const EXTENTS_AHEAD: usize = 16;
/// within these.
pub const EXTENT_BYTES_RANGE: RangeInclusive<usize> = 1024 * 1024..=EXTENT_BYTES;
/// The largest record, with all its parts. A larger one is damage.
pub const RECORD_BYTES: usize = 64 * 1024 * 1024;
/// What a topic may set as its largest record, and as the size of the chunks of larger ones.
pub const RECORD_BYTES_RANGE: RangeInclusive<usize> = 1024 * 1024..=RECORD_BYTES;
/// The most chunks of one record: each takes some memory for as long as its object is at hand.
pub const CHUNKS: u64 = 65_536;
/// The most records of an extent.
pub const EXTENT_RECORDS: usize = 65_536;
/// Extents of a partition that are noted as lost: their objects were deleted or changed after they were published.
pub const LOST_EXTENTS: usize = 65_536;
/// Objects next to one that is gone of which one has to be there, as it was listed, for that one to be left out.
pub const NEIGHBOURS: usize = 4;
/// What later extents of an object need of its beginning.
pub const PRELUDE_BYTES: usize = 64 * 1024;
/// How many times larger than its bytes an object's content may be: more is a bomb.
pub const EXPANSION: u64 = 200;
/// Damages of one object that are listed, and of one partition; all are counted.
pub const LISTED_DAMAGES: usize = 16;
/// The headers before one that say more of a tar's member (pax, GNU's long names), together.
pub const TAR_EXTENSION_BYTES: usize = 1024 * 1024;
/// What may lie between the members of one WebDataset sample, their headers included.
pub const TAR_OVERHEAD_BYTES: usize = 4 * 1024 * 1024;
/// What may follow the last member of a tar: two blocks of zeros, and what fills its last record of 20 blocks.
pub const TAR_END_BYTES: u64 = 1024 + 10_240;
/// The largest index file beside an object. It is in memory as a whole while the object is counted.
pub const SIDECAR_BYTES: u64 = 64 * 1024 * 1024;
/// The largest gzip header: its extra field, its name and its comment.
pub const GZIP_HEADER_BYTES: usize = 128 * 1024;
/// The largest window of a zstd frame, as a power of two: what the `zstd` tool takes without being asked to.
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// The first GET of a Parquet file is for so many of its last bytes: most footers fit.
pub const PARQUET_TAIL_BYTES: u64 = 64 * 1024;
/// The largest footer of a Parquet file. Reading it takes some times as much memory.
pub const PARQUET_FOOTER_BYTES: u64 = 16 * 1024 * 1024;
/// Elements of a Parquet file's schema: columns, and the groups that they are in.
pub const PARQUET_COLUMNS: usize = 16_384;
/// Column chunks of a Parquet file, all row groups together.
pub const PARQUET_CHUNKS: usize = 262_144;
/// Elements of any other list in a footer.
pub const PARQUET_LIST: usize = 65_536;
/// How deep a Parquet file's columns may lie. A row as JSON is about as deep, and the parser of JSON takes 127 levels.
pub const PARQUET_DEPTH: usize = 48;
/// The most bytes of a row group's columns that are read, as they lie in the file: they are in memory together.
pub const PARQUET_GROUP_BYTES: u64 = 512 * 1024 * 1024;
/// Row groups that are fetched at once where they have no more bytes than an extent together.
pub const PARQUET_BUNDLE: usize = 8;
/// The largest page of a Parquet file, decompressed. It has to hold the largest record.
pub const PARQUET_PAGE_BYTES: usize = 256 * 1024 * 1024;
/// The largest header of a page: it may have two values of the column as statistics.
pub const PARQUET_PAGE_HEADER_BYTES: usize = 1024 * 1024;
/// The largest value of a column of a fixed width.
pub const PARQUET_VALUE_WIDTH: usize = 1024 * 1024;
/// What one page and the dictionary of each column that is read may take together.
pub const PARQUET_OPEN_BYTES: u64 = 1024 * 1024 * 1024;
/// The most values of one page in a column of lists, and of what one step may read of it: each takes 16 bytes and more.
pub const PARQUET_STEP_VALUES: u64 = 16 * 1024 * 1024;
/// The most bytes of pages that one step may read of one column.
pub const PARQUET_STEP_BYTES: u64 = 2 * PARQUET_PAGE_BYTES as u64;
/// Rows that are decoded in one step: fewer where they are large.
pub const PARQUET_STEP_ROWS: usize = 1024;
/// Rows are written as JSON in stretches of about this size.
pub const PARQUET_RENDERED_BYTES: u64 = 1024 * 1024;
/// A record of `robustmq.source.rows = arrow` has rows of about so many bytes,
pub const ARROW_BATCH_BYTES: u64 = 512 * 1024;
/// or so many rows.
pub const ARROW_BATCH_ROWS: usize = 1024;
/// The content of a small Parquet file may be that large, whatever [`EXPANSION`] says: rows of a few values compress well.
pub const PARQUET_CONTENT_BYTES: u64 = 1024 * 1024 * 1024;
/// Row groups in memory have so many quarters of the cache's memory at most, those of all topics together. One is there however large it is.
pub const PARQUET_HELD_QUARTERS: u64 = 3;
/// And leave so much of it where it is small, or half of it.
pub const PARQUET_LEAVES_BYTES: u64 = 24 * 1024 * 1024;
/// The footers of their files, in memory.
pub const PARQUET_FOOTERS_BYTES: usize = 64 * 1024 * 1024;
/// Read-ahead leaves room for decoding for so long after nothing was decoded any more.
pub const WORK_GOES_ON: Duration = Duration::from_secs(15);
/// A row group that nobody has read for so long is not held any more.
pub const PARQUET_HELD: Duration = Duration::from_secs(15);
/// While others wait for room, a row group is kept for whoever reads it for as long as it took to fetch, within this. Who has waited for the
/// longest of it has one go that is as old, though somebody always reads it.
pub const PARQUET_PATIENCE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(5);
/// How often it is looked whether there is room for another.
pub const PARQUET_HELD_LOOK: Duration = Duration::from_millis(100);
/// The largest window of `robustmq.source.shuffle`.
pub const WINDOW_RECORDS: u32 = 65_536;
/// Objects of one topic.
pub const OBJECTS: usize = 10_000_000;
/// Objects of one part of a manifest.
pub const MANIFEST_CHUNK: usize = 1000;
/// The largest part of a manifest, decompressed: names have up to 1,024 bytes.
pub const MANIFEST_CHUNK_BYTES: usize = 16 * 1024 * 1024;
/// Parts of a topic's manifest that are in memory.
pub const MANIFEST_CHUNKS: usize = 32;
/// A manifest is written in pieces of this size.
pub const MANIFEST_WRITE_BYTES: usize = 1024 * 1024;
/// Bytes of objects that are on their way for indexing one partition, at most; one object may be larger.
pub const INDEXING_BYTES: u64 = 64 * 1024 * 1024;
/// Objects that are indexed at once for one partition.
pub const INDEXING_OBJECTS: usize = 32;
/// The first extent of an object whose first records somebody waits for; each further one is twice as long, up to [`EXTENT_BYTES`].
pub const FIRST_EXTENT_BYTES: usize = 1024 * 1024;
/// What one of several readers of a source reads in a second, about: by that it is told which GET is needed first.
pub const READ_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// What is fetched at once of an object that is compressed: it becomes some times as much.
pub const CODED_PIECE_BYTES: usize = 4 * 1024 * 1024;
/// And decompressed at once; all pieces are multiples of it.
pub const CODED_STEP_BYTES: usize = 16 * 1024;
/// Records of an object that is compressed wait for the checksum that comes after them, as long as they have no more content than this.
pub const UNSOUND_BYTES: u64 = 64 * 1024 * 1024;
/// GETs of a compressed object that is read again, at once.
pub const CODED_GETS: usize = 3;
/// And so many decoders should have room for theirs.
pub const CODED_DECODERS: usize = 8;
/// What one of these GETs is for.
pub const CODED_PIECES: RangeInclusive<usize> = 256 * 1024..=CODED_PIECE_BYTES;
/// Decoders that stay between two reads of one compressed object: one for each of so many readers.
pub const CODED_STREAMS: usize = 3;
/// A decoder that nobody has read on with for so long goes.
pub const CODED_IDLE: Duration = Duration::from_secs(30);
/// What decoders hold that nobody reads on with just now may be this part of the cache's memory.
pub const CODED_IDLE_SHARE: usize = 4;
/// The rest of a piece that waits for what follows it has a place in the cache's books if it is as large as this.
pub const REST_BYTES: usize = 1024 * 1024;
/// GETs for one object that is indexed.
pub const INDEXING_GETS: usize = 8;
/// Indexes of objects that are in memory, in bytes, for each source.
pub const INDEX_MEMORY_BYTES: usize = 32 * 1024 * 1024;
/// So far ahead of readers a partition is counted, in bytes, and fetched.
pub const COUNTED_AHEAD_BYTES: u64 = 256 * 1024 * 1024;
/// Less than that is fetched ahead of a reader at first; twice as much with each read that follows the last.
pub const FIRST_AHEAD_BYTES: u64 = 4 * EXTENT_BYTES as u64;
/// Where there was no room to fetch ahead, it is tried again after this time.
pub const AHEAD_PAUSE: Duration = Duration::from_millis(20);
/// How long a partition stays open that somebody has asked the state of.
pub const LOOKED_AT: Duration = Duration::from_secs(60);
/// Values of this size and more are sent as they lie in the cache. It costs less to copy smaller ones.
pub const LENT_BYTES: usize = 32 * 1024;
/// The most bytes of one read, but for its first record.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// What stays in memory is passed over in fetching ahead: so many times as much as is fetched, at most.
pub const AHEAD_DISTANCE: u64 = 8;
/// Readers of one partition that are told apart.
pub const READERS: usize = 64;
/// Who has not read for so long is not fetched ahead for.
pub const READER_KEPT: Duration = Duration::from_secs(30);
/// The largest record batch that is made of a dataset.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long a partition whose source failed is left alone.
pub const RETRY: Duration = Duration::from_secs(2);
/// The longest of these.
pub const RETRY_MOST: Duration = Duration::from_secs(10);
/// How long one step of a search for a key may take: the admin listener answers within three times that.
pub const FIND_STEP: Duration = Duration::from_secs(10);
/// How long whoever asks for a topic's figures waits until what was counted before a start is counted again.
pub const SETTLES: Duration = Duration::from_secs(5);
/// Extents that a search reads at once.
pub const FIND_LOADS: usize = 4;
/// Searches at once. Further ones are refused.
pub const FIND_SEARCHES: usize = 4;
/// Samples that one step of a search tells of.
pub const FIND_MATCHES: usize = 1000;

/// Why a partition did not go on is told for so long after it was met last, if it may pass by itself.
pub const TROUBLE_TOLD: Duration = Duration::from_secs(300);
/// Damaged samples that the status of a topic lists; all are counted.
pub const SHOWN_DAMAGES: usize = 64;

// Of GETs.

/// GETs of one source at the same time, at first.
pub const GETS_FIRST: usize = 16;
/// What they ask for together, at first.
pub const GETS_FIRST_BYTES: u64 = 32 * 1024 * 1024;
/// And only for what is needed so soon.
pub const GETS_FIRST_SOON: Duration = Duration::from_millis(100);
/// So many may go on however much they ask for.
pub const GETS_BESIDE: usize = 2;
/// What the way to a source carries is looked at so often.
pub const LINK_LOOK: Duration = Duration::from_millis(100);
/// So many looks say less than it carries.
pub const LINK_LOOKS: u32 = 10;
/// The most that they grow to while they succeed.
pub const GETS_MOST: usize = 64;
/// The fewest that they shrink to where a source says that they are too many.
pub const GETS_LEAST: usize = 1;
/// A GET that brings no byte for this long is broken off and begun again for the rest.
pub const GET_SILENCE: Duration = Duration::from_secs(20);
/// A GET that is not answered in so many times the mean is sent a second time, and the first answer is taken: a long tail of a store's
/// answers is what readers wait for.
pub const GET_LATE_TIMES: u32 = 3;
/// But not sooner than this,
pub const GET_LATE_LEAST: Duration = Duration::from_millis(50);
/// and once in so many GETs at most: more does not help where all are slow.
pub const GETS_FOR_A_SECOND: u64 = 20;
/// GETs in a row that bring less than [`GET_PROGRESS_BYTES`], until who asked is told that the object cannot be read.
pub const GET_ATTEMPTS: u32 = 6;
/// A GET that breaks after so many bytes counts as none of these: the link is bad, but it is one.
pub const GET_PROGRESS_BYTES: usize = 256 * 1024;
/// The pause before the second of them is at most this; before each further one, twice as long.
pub const GET_PAUSE: Duration = Duration::from_millis(100);
/// The longest of the former.
pub const GET_PAUSE_MOST: Duration = Duration::from_secs(5);
/// The memory of an answer's body is taken at once up to this size; a longer one's grows as it comes.
pub const GET_BUFFER_BYTES: usize = RECORD_BYTES;

// Of the cache.

/// The least that may be set: what readers read ahead, half of it, has to hold two extents of the usual size.
pub const CACHE_BYTES_MIN: usize = 32 * 1024 * 1024;
/// What extents have at least, whatever is decoded and rendered.
pub const EXTENTS_BYTES_MIN: usize = CACHE_BYTES_MIN / 4;
/// Read-ahead takes this part of the cache's memory,
pub const AHEAD_SHARE: usize = 8;
/// But at least so much of it, or half of less: with less room than what is being read takes, each read fetches its extent anew.
pub const AHEAD_BYTES_LEAST: usize = 64 * 1024 * 1024;
/// but no more than this: with it 99.97 % of reads of a source with a long tail waited for nothing.
pub const AHEAD_BYTES: usize = 1024 * 1024 * 1024;
/// What was asked for within this time is being read, and makes no room for others: they wait.
pub const BEING_READ: Duration = Duration::from_millis(200);
/// What was read ahead, or is being read, and was not asked for in this time makes room for what is read ahead.
pub const AHEAD_KEPT: Duration = Duration::from_secs(60);
/// Extents that went while they were read, and are known for it if they are loaded again.
pub const STRAIN_NOTED: usize = 64;
/// Half of what what is being read has of the room of what stays is given back after this time; they are known for as long.
pub const STRAIN_HALVES: Duration = Duration::from_secs(30);
/// Loads that are under way or wait for room. Readers of further extents are refused.
pub const LOADS: usize = 4096;
/// What a user's share of the cache is told in, unless it is set, and the most that it may be set to.
pub const WEIGHT: u32 = 100;
pub const WEIGHT_MOST: u32 = 10_000;
/// A user who reads nothing for this long is idle: what others read takes its extents' places.
pub const IDLE: Duration = Duration::from_secs(300);
/// Users that are told apart. What is of further ones counts as idle.
pub const CACHE_USERS: usize = 4096;
/// What an extent takes in the cache's books, however small it is.
pub const EXTENT_COST_BYTES: usize = 512;
/// Accesses of which the least that any cache would have had to fetch is computed.
pub const TRACED_ACCESSES: usize = 65_536;

// Of the cache's SSD.

/// An extent takes whole blocks of this size.
pub const SSD_BLOCK_BYTES: usize = 256 * 1024;
/// The least that may be set.
pub const SSD_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Extents that wait to be written to it may take this part of the cache's memory, all together; further ones are not written.
pub const SSD_QUEUE_SHARE: usize = 16;
/// And no more than this.
pub const SSD_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How many they may be.
pub const SSD_QUEUE: usize = 256;
/// What is written to it, in the long run. Once it holds the extents that rank first, hardly anything is.
pub const SSD_WRITE_BYTES_PER_SECOND: u64 = 256 * 1024 * 1024;
/// What may be written at once after a pause.
pub const SSD_WRITE_BURST_BYTES: u64 = 1024 * 1024 * 1024;
/// How long what is in memory is written to it at the end.
pub const SSD_SPILL: Duration = Duration::from_secs(20);
/// Its journal is written anew when it has grown by so much, and to four times what it needs.
pub const SSD_JOURNAL_BYTES: u64 = 4 * 1024 * 1024;
