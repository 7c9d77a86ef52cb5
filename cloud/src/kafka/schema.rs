//! The shape of every request that this broker decodes, as data: what the frame check walks before a decoder may run.
//!
//! Taken from Apache Kafka's message schemas (`clients/src/main/resources/common/message/*Request.json`). A test
//! encodes each request in each version with the generated encoder and walks the bytes, so a layout cannot drift
//! away from its decoder.

use self::Kind::{Array, Bytes, Fixed, Nullable, Str, Struct};

/// One value on the wire.
#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A length, then so many bytes: 16 bits in classic versions, a compact length in flexible ones.
    Str,
    /// As `Str`, with 32 bits of length in classic versions.
    Bytes,
    /// A count, then so many values.
    Array(&'static Kind),
    /// Fields one after the other, and tagged fields in flexible versions.
    Struct(&'static [Field]),
    /// One signed byte: 1 when the struct follows.
    Nullable(&'static [Field]),
}

/// A field and the versions that have it: first, last, kind, and the tag when it is a tagged field.
#[derive(Debug)]
pub(crate) struct Field {
    pub first: i16,
    pub last: i16,
    pub kind: Kind,
    pub tag: Option<u32>,
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The first flexible version (KIP-482): compact lengths and tagged fields; the header has tagged fields too.
    pub flexible: i16,
    pub fields: &'static [Field],
}

const LAST: i16 = i16::MAX;
const NEVER: i16 = i16::MAX;
const BOOL: Kind = Fixed(1);
const I8: Kind = Fixed(1);
const I16: Kind = Fixed(2);
const I32: Kind = Fixed(4);
const I64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);
const STRS: Kind = Array(&Str);
const INTS: Kind = Array(&I32);

/// In every version.
const fn all(kind: Kind) -> Field {
    Field { first: 0, last: LAST, kind, tag: None }
}
/// From a version on.
const fn from(first: i16, kind: Kind) -> Field {
    Field { first, last: LAST, kind, tag: None }
}
/// Up to a version.
const fn until(last: i16, kind: Kind) -> Field {
    Field { first: 0, last, kind, tag: None }
}
/// Between two versions.
const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field { first, last, kind, tag: None }
}
/// A tagged field, from a version on.
const fn tagged(tag: u32, first: i16, kind: Kind) -> Field {
    Field { first, last: LAST, kind, tag: Some(tag) }
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident flexible $flexible:expr; $($field:expr),* $(,)?) => {
        $(#[$doc])*
        pub(crate) static $name: Layout = {
            static FIELDS: &[Field] = &[$($field),*];
            Layout { flexible: $flexible, fields: FIELDS }
        };
    };
}

/// A nested struct has a name, since what a function call makes is not promoted to a constant.
macro_rules! structure {
    ($name:ident; $($field:expr),* $(,)?) => {
        const $name: &[Field] = &[$($field),*];
    };
}

structure!(PRODUCE_PARTITION; all(I32), all(Bytes));
structure!(PRODUCE_TOPIC; until(12, Str), from(13, UUID), all(Array(&Struct(PRODUCE_PARTITION))));
layout!(PRODUCE flexible 9;
    from(3, Str), all(I16), all(I32), all(Array(&Struct(PRODUCE_TOPIC))));

structure!(REPLICA_STATE; all(I32), all(I64));
structure!(FETCH_PARTITION;
    all(I32), from(9, I32), all(I64), from(12, I32), from(5, I64), all(I32),
    tagged(0, 17, UUID), tagged(1, 18, I64));
structure!(FETCH_TOPIC; until(12, Str), from(13, UUID), all(Array(&Struct(FETCH_PARTITION))));
structure!(FORGOTTEN_TOPIC; until(12, Str), from(13, UUID), all(INTS));
layout!(FETCH flexible 12;
    until(14, I32), all(I32), all(I32), all(I32), all(I8), from(7, I32), from(7, I32),
    all(Array(&Struct(FETCH_TOPIC))), from(7, Array(&Struct(FORGOTTEN_TOPIC))), from(11, Str),
    tagged(0, 12, Str), tagged(1, 15, Struct(REPLICA_STATE)));

structure!(LIST_OFFSETS_PARTITION; all(I32), from(4, I32), all(I64));
structure!(LIST_OFFSETS_TOPIC; all(Str), all(Array(&Struct(LIST_OFFSETS_PARTITION))));
layout!(LIST_OFFSETS flexible 6;
    all(I32), from(2, I8), all(Array(&Struct(LIST_OFFSETS_TOPIC))), from(10, I32));

structure!(METADATA_TOPIC; from(10, UUID), all(Str));
layout!(METADATA flexible 9;
    all(Array(&Struct(METADATA_TOPIC))), from(4, BOOL), between(8, 10, BOOL), from(8, BOOL));

structure!(OFFSET_COMMIT_PARTITION; all(I32), all(I64), from(6, I32), all(Str));
structure!(OFFSET_COMMIT_TOPIC; all(Str), all(Array(&Struct(OFFSET_COMMIT_PARTITION))));
layout!(OFFSET_COMMIT flexible 8;
    all(Str), all(I32), all(Str), from(7, Str), until(4, I64),
    all(Array(&Struct(OFFSET_COMMIT_TOPIC))));

structure!(OFFSET_FETCH_TOPIC; all(Str), all(INTS));
structure!(OFFSET_FETCH_GROUP;
    all(Str), from(9, Str), from(9, I32), all(Array(&Struct(OFFSET_FETCH_TOPIC))));
layout!(OFFSET_FETCH flexible 6;
    until(7, Str), until(7, Array(&Struct(OFFSET_FETCH_TOPIC))),
    from(8, Array(&Struct(OFFSET_FETCH_GROUP))), from(7, BOOL));

layout!(FIND_COORDINATOR flexible 3; until(3, Str), from(1, I8), from(4, STRS));

structure!(JOIN_PROTOCOL; all(Str), all(Bytes));
layout!(JOIN_GROUP flexible 6;
    all(Str), all(I32), from(1, I32), all(Str), from(5, Str), all(Str),
    all(Array(&Struct(JOIN_PROTOCOL))), from(8, Str));

structure!(SYNC_ASSIGNMENT; all(Str), all(Bytes));
layout!(SYNC_GROUP flexible 4;
    all(Str), all(I32), all(Str), from(3, Str), from(5, Str), from(5, Str),
    all(Array(&Struct(SYNC_ASSIGNMENT))));

layout!(HEARTBEAT flexible 4; all(Str), all(I32), all(Str), from(3, Str));

structure!(LEAVE_MEMBER; all(Str), all(Str), from(5, Str));
layout!(LEAVE_GROUP flexible 4; all(Str), until(2, Str), from(3, Array(&Struct(LEAVE_MEMBER))));

layout!(DESCRIBE_GROUPS flexible 5; all(STRS), from(3, BOOL));
layout!(LIST_GROUPS flexible 3; from(4, STRS), from(5, STRS));
layout!(DELETE_GROUPS flexible 2; all(STRS));
layout!(API_VERSIONS flexible 3; from(3, Str), from(3, Str));

structure!(REPLICA_ASSIGNMENT; all(I32), all(INTS));
structure!(NEW_TOPIC_CONFIG; all(Str), all(Str));
structure!(NEW_TOPIC;
    all(Str), all(I32), all(I16), all(Array(&Struct(REPLICA_ASSIGNMENT))),
    all(Array(&Struct(NEW_TOPIC_CONFIG))));
layout!(CREATE_TOPICS flexible 5; all(Array(&Struct(NEW_TOPIC))), all(I32), all(BOOL));

structure!(DELETED_TOPIC; all(Str), all(UUID));
layout!(DELETE_TOPICS flexible 4; from(6, Array(&Struct(DELETED_TOPIC))), until(5, STRS), all(I32));

structure!(DELETE_RECORDS_PARTITION; all(I32), all(I64));
structure!(DELETE_RECORDS_TOPIC; all(Str), all(Array(&Struct(DELETE_RECORDS_PARTITION))));
layout!(DELETE_RECORDS flexible 2; all(Array(&Struct(DELETE_RECORDS_TOPIC))), all(I32));

layout!(INIT_PRODUCER_ID flexible 2; all(Str), all(I32), from(3, I64), from(3, I16));

structure!(EPOCH_PARTITION; all(I32), all(I32), all(I32));
structure!(EPOCH_TOPIC; all(Str), all(Array(&Struct(EPOCH_PARTITION))));
layout!(OFFSET_FOR_LEADER_EPOCH flexible 4; from(3, I32), all(Array(&Struct(EPOCH_TOPIC))));

structure!(DESCRIBED_RESOURCE; all(I8), all(Str), all(STRS));
layout!(DESCRIBE_CONFIGS flexible 4;
    all(Array(&Struct(DESCRIBED_RESOURCE))), all(BOOL), from(3, BOOL));

structure!(REPLACED_CONFIG; all(Str), all(Str));
structure!(REPLACED_RESOURCE; all(I8), all(Str), all(Array(&Struct(REPLACED_CONFIG))));
layout!(ALTER_CONFIGS flexible 2; all(Array(&Struct(REPLACED_RESOURCE))), all(BOOL));

structure!(LOG_DIR_TOPIC; all(Str), all(INTS));
layout!(DESCRIBE_LOG_DIRS flexible 2; all(Array(&Struct(LOG_DIR_TOPIC))));

structure!(ALTERED_CONFIG; all(Str), all(I8), all(Str));
structure!(ALTERED_RESOURCE; all(I8), all(Str), all(Array(&Struct(ALTERED_CONFIG))));
layout!(INCREMENTAL_ALTER_CONFIGS flexible 1; all(Array(&Struct(ALTERED_RESOURCE))), all(BOOL));

structure!(PARTITIONS_ASSIGNMENT; all(INTS));
structure!(PARTITIONS_TOPIC; all(Str), all(I32), all(Array(&Struct(PARTITIONS_ASSIGNMENT))));
layout!(CREATE_PARTITIONS flexible 2; all(Array(&Struct(PARTITIONS_TOPIC))), all(I32), all(BOOL));

structure!(OFFSET_DELETE_PARTITION; all(I32));
structure!(OFFSET_DELETE_TOPIC; all(Str), all(Array(&Struct(OFFSET_DELETE_PARTITION))));
layout!(OFFSET_DELETE flexible NEVER; all(Str), all(Array(&Struct(OFFSET_DELETE_TOPIC))));

layout!(DESCRIBE_CLUSTER flexible 0; all(BOOL), from(1, I8), from(2, BOOL));

structure!(TOPIC_NAME; all(Str));
structure!(CURSOR; all(Str), all(I32));
layout!(DESCRIBE_TOPIC_PARTITIONS flexible 0;
    all(Array(&Struct(TOPIC_NAME))), all(I32), all(Nullable(CURSOR)));

structure!(OWNED_PARTITIONS; all(UUID), all(INTS));
layout!(CONSUMER_GROUP_HEARTBEAT flexible 0;
    all(Str), all(Str), all(I32), all(Str), all(Str), all(I32), all(STRS), from(1, Str), all(Str),
    all(Array(&Struct(OWNED_PARTITIONS))));
layout!(CONSUMER_GROUP_DESCRIBE flexible 0; all(STRS), all(BOOL));

layout!(SHARE_GROUP_HEARTBEAT flexible 0; all(Str), all(Str), all(I32), all(Str), all(STRS));
layout!(SHARE_GROUP_DESCRIBE flexible 0; all(STRS), all(BOOL));

structure!(ACKNOWLEDGEMENTS; all(I64), all(I64), all(Array(&I8)));
structure!(SHARE_PARTITION; all(I32), all(Array(&Struct(ACKNOWLEDGEMENTS))));
structure!(SHARE_TOPIC; all(UUID), all(Array(&Struct(SHARE_PARTITION))));
structure!(SHARE_FORGOTTEN_TOPIC; all(UUID), all(INTS));
layout!(SHARE_FETCH flexible 0;
    all(Str), all(Str), all(I32), all(I32), all(I32), all(I32), all(I32), all(I32),
    all(Array(&Struct(SHARE_TOPIC))), all(Array(&Struct(SHARE_FORGOTTEN_TOPIC))));
layout!(SHARE_ACKNOWLEDGE flexible 0;
    all(Str), all(Str), all(I32), all(Array(&Struct(SHARE_TOPIC))));

structure!(SHARE_OFFSETS_TOPIC; all(Str), all(INTS));
structure!(SHARE_OFFSETS_GROUP; all(Str), all(Array(&Struct(SHARE_OFFSETS_TOPIC))));
layout!(DESCRIBE_SHARE_GROUP_OFFSETS flexible 0; all(Array(&Struct(SHARE_OFFSETS_GROUP))));
structure!(ALTERED_SHARE_PARTITION; all(I32), all(I64));
structure!(ALTERED_SHARE_TOPIC; all(Str), all(Array(&Struct(ALTERED_SHARE_PARTITION))));
layout!(ALTER_SHARE_GROUP_OFFSETS flexible 0;
    all(Str), all(Array(&Struct(ALTERED_SHARE_TOPIC))));
layout!(DELETE_SHARE_GROUP_OFFSETS flexible 0; all(Str), all(Array(&Struct(TOPIC_NAME))));
