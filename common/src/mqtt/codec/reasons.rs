//! Which reason codes each packet may carry, from the tables of the packets' sections.

use crate::mqtt::packet::ReasonCode;

/// Which reason codes a packet may carry, from the tables of the packets' sections.
pub(super) type Reasons = fn(ReasonCode) -> bool;

pub(super) const PUBLISH_REASONS: Reasons = |reason| {
    use ReasonCode as R;
    matches!(
        reason,
        R::Success
            | R::NoMatchingSubscribers
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicNameInvalid
            | R::PacketIdentifierInUse
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
    )
};

pub(super) const RELEASE_REASONS: Reasons =
    |reason| matches!(reason, ReasonCode::Success | ReasonCode::PacketIdentifierNotFound);

pub(super) const SUBACK_REASONS: Reasons = |reason| {
    use ReasonCode as R;
    matches!(
        reason,
        R::Success
            | R::GrantedQos1
            | R::GrantedQos2
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicFilterInvalid
            | R::PacketIdentifierInUse
            | R::QuotaExceeded
            | R::SharedSubscriptionsNotSupported
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported
    )
};

pub(super) const UNSUBACK_REASONS: Reasons = |reason| {
    use ReasonCode as R;
    matches!(
        reason,
        R::Success
            | R::NoSubscriptionExisted
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicFilterInvalid
            | R::PacketIdentifierInUse
    )
};

pub(super) const CONNACK_REASONS: Reasons = |reason| {
    use ReasonCode as R;
    matches!(
        reason,
        R::Success
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::NotAuthorized
            | R::ServerUnavailable
            | R::ServerBusy
            | R::Banned
            | R::BadAuthenticationMethod
            | R::TopicNameInvalid
            | R::PacketTooLarge
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
            | R::RetainNotSupported
            | R::QosNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::ConnectionRateExceeded
    )
};

pub(super) const DISCONNECT_REASONS: Reasons = |reason| {
    use ReasonCode as R;
    !matches!(
        reason,
        R::GrantedQos1
            | R::GrantedQos2
            | R::NoMatchingSubscribers
            | R::NoSubscriptionExisted
            | R::ContinueAuthentication
            | R::ReAuthenticate
            | R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::ServerUnavailable
            | R::Banned
            | R::BadAuthenticationMethod
            | R::PacketIdentifierInUse
            | R::PacketIdentifierNotFound
    )
};

pub(super) const AUTH_REASONS: Reasons = |reason| {
    use ReasonCode as R;
    matches!(reason, R::Success | R::ContinueAuthentication | R::ReAuthenticate)
};
