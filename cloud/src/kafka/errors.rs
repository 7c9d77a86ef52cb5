//! The one map from this broker's errors to Kafka's error codes. Each match is exhaustive.

use kafka_protocol::error::ResponseError;
use robustmq_common::record::BatchError;

use crate::group::coordinator::CoordinatorError;
use crate::group::machine::GroupError;
use crate::group::share::coordinator::ShareError;
use crate::group::share::members::{MemberError, SessionError};
use crate::group::shared::coordinator::CommitError;
use crate::group::shared::deliver::DeliverError;
use crate::group::shared::pool::AcknowledgeError;
use crate::group::shared::pools::{PoolError, SettleError};
use crate::kafka::memory::NoMemory;
use crate::log::{
    AppendError, DeleteRecordsError, LogError, LookupError, ProducerError, ReadError,
};
use crate::store::StoreError;
use crate::topics::TopicError;

/// An error of this broker, as Kafka's clients know it.
pub(super) trait KafkaCode {
    /// Kafka's error.
    fn kafka(&self) -> ResponseError;

    /// Kafka's error code.
    fn code(&self) -> i16 {
        self.kafka().code()
    }
}

impl KafkaCode for StoreError {
    fn kafka(&self) -> ResponseError {
        match self {
            // Clients come back at once, and find it gone.
            Self::Busy { .. } | Self::StaleEra | Self::Closed => ResponseError::NotLeaderOrFollower,
            // Clients come back as well, but this does not pass by itself, and is called what it is.
            Self::NoSpace(_)
            | Self::Unavailable(_)
            | Self::Poisoned(_)
            | Self::Read(_)
            | Self::Damaged { .. }
            | Self::Open { .. } => ResponseError::KafkaStorageError,
        }
    }
}

/// For groups there is COORDINATOR_LOAD_IN_PROGRESS, which their clients retry.
impl KafkaCode for NoMemory {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Exhausted(_) | Self::TooLarge { .. } => ResponseError::LeaderNotAvailable,
        }
    }
}

impl KafkaCode for LogError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Dropped(_) => ResponseError::UnknownTopicOrPartition,
            Self::TooManyPartitions(_) => ResponseError::LeaderNotAvailable,
            Self::Store(error) => error.kafka(),
        }
    }
}

impl KafkaCode for AppendError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::NotReady => ResponseError::NotLeaderOrFollower,
            Self::TooLarge { .. } => ResponseError::MessageTooLarge,
            Self::Invalid(_) | Self::NoKey { .. } | Self::OffsetsExhausted => {
                ResponseError::InvalidRecord
            }
            Self::Records(error) => error.kafka(),
            Self::Transactional => ResponseError::TransactionalIdAuthorizationFailed,
            Self::Producer(ProducerError::InvalidEpoch { .. }) => {
                ResponseError::InvalidProducerEpoch
            }
            Self::Producer(ProducerError::OutOfOrderSequence { .. }) => {
                ResponseError::OutOfOrderSequenceNumber
            }
            // Only edges have origins, and they do not speak Kafka.
            Self::AlreadyApplied { .. } | Self::OriginNotLoaded => {
                ResponseError::UnknownServerError
            }
            Self::Dropped(_) => ResponseError::UnknownTopicOrPartition,
            Self::ReadOnly => ResponseError::PolicyViolation,
            Self::Store(error) => error.kafka(),
        }
    }
}

impl KafkaCode for BatchError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Magic { magic: 0 | 1 } => ResponseError::UnsupportedForMessageFormat,
            Self::Length { .. }
            | Self::Magic { .. }
            | Self::Checksum { .. }
            | Self::Decompress { .. } => ResponseError::CorruptMessage,
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => {
                ResponseError::MessageTooLarge
            }
            Self::Invalid { .. } | Self::Record { .. } => ResponseError::InvalidRecord,
            Self::UnknownCompression { .. } => ResponseError::UnsupportedCompressionType,
        }
    }
}

impl KafkaCode for ReadError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            Self::Dropped => ResponseError::UnknownTopicOrPartition,
            Self::Store(error) => error.kafka(),
        }
    }
}

impl KafkaCode for LookupError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Batch { .. } => ResponseError::KafkaStorageError,
            Self::Store(error) => error.kafka(),
        }
    }
}

impl KafkaCode for DeleteRecordsError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            Self::Dropped => ResponseError::UnknownTopicOrPartition,
            Self::Store(error) => error.kafka(),
        }
    }
}

impl KafkaCode for TopicError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Exists(_) => ResponseError::TopicAlreadyExists,
            Self::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            Self::Partitions { .. } => ResponseError::InvalidPartitions,
            Self::Source(_) => ResponseError::PolicyViolation,
            Self::Config(_) => ResponseError::InvalidConfig,
            Self::Store(error) => error.kafka(),
        }
    }
}

impl KafkaCode for GroupError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::UnknownMember => ResponseError::UnknownMemberId,
            Self::IllegalGeneration => ResponseError::IllegalGeneration,
            Self::RebalanceInProgress => ResponseError::RebalanceInProgress,
            Self::FencedInstance => ResponseError::FencedInstanceId,
            Self::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
            Self::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
            Self::MaxSizeReached => ResponseError::GroupMaxSizeReached,
            Self::MemberIdRequired => ResponseError::MemberIdRequired,
            Self::NonEmpty => ResponseError::NonEmptyGroup,
            Self::NotStored => ResponseError::CoordinatorNotAvailable,
        }
    }
}

/// As the coordinator's clients know them: they retry COORDINATOR_NOT_AVAILABLE.
impl KafkaCode for PoolError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Acknowledge(AcknowledgeError::NoCursor) => ResponseError::UnknownMemberId,
            Self::Acknowledge(AcknowledgeError::NeverDelivered(_)) => {
                ResponseError::OffsetOutOfRange
            }
            Self::Log(LogError::Dropped(_)) => ResponseError::UnknownTopicOrPartition,
            Self::Log(LogError::TooManyPartitions(_) | LogError::Store(_)) => {
                ResponseError::CoordinatorNotAvailable
            }
            Self::InUse => ResponseError::NonEmptyGroup,
            Self::Config(_) => ResponseError::InvalidConfig,
        }
    }
}

impl KafkaCode for SettleError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::NotHeld(_) => ResponseError::InvalidRecordState,
            Self::Deliver(error) => error.kafka(),
            Self::Pool(error) => error.kafka(),
        }
    }
}

impl KafkaCode for SessionError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::UnknownMember => ResponseError::UnknownMemberId,
            Self::NotFound => ResponseError::ShareSessionNotFound,
            Self::InvalidEpoch => ResponseError::InvalidShareSessionEpoch,
            Self::TooManyPartitions => ResponseError::ShareSessionLimitReached,
            Self::AcknowledgesTooEarly => ResponseError::InvalidRequest,
        }
    }
}

impl KafkaCode for ShareError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Member(MemberError::Unknown) => ResponseError::UnknownMemberId,
            Self::Member(MemberError::Fenced) => ResponseError::FencedMemberEpoch,
            Self::Member(MemberError::TooMany) => ResponseError::GroupMaxSizeReached,
            Self::Member(
                MemberError::NothingSubscribed
                | MemberError::TooManyTopics
                | MemberError::InvalidId,
            ) => ResponseError::InvalidRequest,
            Self::Group(error) => error.kafka(),
        }
    }
}

impl KafkaCode for CommitError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::NotOwnCursor => ResponseError::InvalidRequest,
            Self::Pool(error) => error.kafka(),
        }
    }
}

impl KafkaCode for DeliverError {
    fn kafka(&self) -> ResponseError {
        match self {
            // A cursor is never told OFFSET_OUT_OF_RANGE: its client would go on at a real offset.
            Self::Read(ReadError::OutOfRange { .. }) => ResponseError::NotLeaderOrFollower,
            Self::Read(error) => error.kafka(),
            Self::Batch(_) => ResponseError::KafkaStorageError,
            // It comes back, and so does the attempt.
            Self::DeadLetter { .. } | Self::Pool(_) => ResponseError::NotLeaderOrFollower,
        }
    }
}

impl KafkaCode for CoordinatorError {
    fn kafka(&self) -> ResponseError {
        match self {
            Self::Group(error) => error.kafka(),
            Self::InvalidGroupId { .. } => ResponseError::InvalidGroupId,
            Self::NotFound { .. } => ResponseError::GroupIdNotFound,
            Self::Pool(error) => error.kafka(),
            Self::TooManyGroups | Self::ShuttingDown => ResponseError::CoordinatorNotAvailable,
            // All clients ask again, and those that are members send heartbeats meanwhile.
            Self::Unclear { .. } => ResponseError::CoordinatorLoadInProgress,
            Self::Store(StoreError::Poisoned(_) | StoreError::Damaged { .. })
            | Self::Damaged { .. } => ResponseError::UnknownServerError,
            // OffsetCommit's clients know no storage error, and give up at it; this one they retry.
            Self::Store(
                StoreError::Busy { .. }
                | StoreError::NoSpace(_)
                | StoreError::Unavailable(_)
                | StoreError::StaleEra
                | StoreError::Closed
                | StoreError::Read(_)
                | StoreError::Open { .. },
            ) => ResponseError::CoordinatorNotAvailable,
        }
    }
}
