//! Why bytes are not a packet, and why a packet has no bytes.

use crate::mqtt::packet::{InvalidTopic, ProtocolVersion, ReasonCode};

/// Why what was read is not a packet. The connection has to be closed; [`super::DecodeError::reason`] is what a 5.0
/// client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be parsed, or breaks a rule that makes it a Malformed Packet.
    #[error("malformed {packet}: {rule}")]
    Malformed {
        /// The packet's name.
        packet: &'static str,
        /// Which rule, with the specification's number where it has one.
        rule: &'static str,
    },
    /// It parses, but breaks a rule that makes it a Protocol Error.
    #[error("protocol error in {packet}: {rule}")]
    Protocol {
        /// The packet's name.
        packet: &'static str,
        /// Which rule, with the specification's number where it has one.
        rule: &'static str,
    },
    /// A topic name or filter breaks a rule.
    #[error("{packet}: {invalid}")]
    Topic {
        /// The packet's name.
        packet: &'static str,
        /// A filter, not a name.
        filter: bool,
        /// Which rule.
        invalid: InvalidTopic,
    },
    /// A CONNECT of 5.0 breaks a rule after its version: the client can be told so in CONNACK.
    #[error("refused CONNECT: {rule}")]
    ConnectV5 {
        /// What it is told.
        reason: ReasonCode,
        /// Which rule, with the specification's number where it has one.
        rule: &'static str,
    },
    /// The fixed header announces more than is taken.
    #[error("a packet of {bytes} bytes; at most {limit} are taken")]
    TooLarge {
        /// Its size with the fixed header.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// CONNECT names another protocol or version: "MQIsdp" (3.1), or a level other than 4 and 5.
    #[error("unsupported MQTT version (protocol level {level})")]
    UnsupportedVersion {
        /// The protocol level.
        level: u8,
        /// What the refusal is best written in: level 5 and above understand a 5.0 CONNACK, others that of 3.1.1.
        answer_in: ProtocolVersion,
    },
}

impl DecodeError {
    /// The reason code that says it (section 4.13).
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::Malformed { .. } => ReasonCode::MalformedPacket,
            Self::Protocol { .. } => ReasonCode::ProtocolError,
            Self::Topic { invalid: InvalidTopic::TooManyLevels(_), filter: false, .. } => {
                ReasonCode::TopicNameInvalid
            }
            Self::Topic { invalid: InvalidTopic::TooManyLevels(_), filter: true, .. } => {
                ReasonCode::TopicFilterInvalid
            }
            Self::Topic { .. } => ReasonCode::MalformedPacket,
            Self::ConnectV5 { reason, .. } => *reason,
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
        }
    }
}

/// Why a packet cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    #[error("a field of {0} bytes; at most 65535 fit")]
    FieldTooLong(usize),
    /// The packet is longer than 268,435,455 bytes.
    #[error("a packet body of {0} bytes; at most 268435455 fit")]
    PacketTooLong(usize),
    /// A refusal that 3.1.1's CONNACK has no return code for: the connection is closed without it.
    #[error("MQTT 3.1.1 has no return code for {0:?}")]
    NoReturnCode(ReasonCode),
    /// The packet does not exist in that version (AUTH in 3.1.1).
    #[error("{0} does not exist in MQTT 3.1.1")]
    NotInVersion(&'static str),
}
