//! Reason codes of MQTT 5.0 (section 2.4) and return codes of 3.1.1 (its section 3.2.2.3).

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// Every reason code of MQTT 5.0. Below 0x80 is success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// The reason code of a wire value, or `None` where the specification has none.
            #[must_use]
            pub fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reason_codes! {
    /// Success, Normal disconnection and Granted QoS 0 share this value.
    Success = 0x00,
    /// SUBACK: QoS 1 granted.
    GrantedQos1 = 0x01,
    /// SUBACK: QoS 2 granted.
    GrantedQos2 = 0x02,
    /// DISCONNECT: the client leaves but wants its will published.
    DisconnectWithWillMessage = 0x04,
    /// PUBACK, PUBREC: taken, nobody subscribes.
    NoMatchingSubscribers = 0x10,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// AUTH: go on.
    ContinueAuthentication = 0x18,
    /// AUTH: start again.
    ReAuthenticate = 0x19,
    /// No reason is given.
    UnspecifiedError = 0x80,
    /// The packet cannot be parsed as the specification says.
    MalformedPacket = 0x81,
    /// The packet parses, but is not allowed here.
    ProtocolError = 0x82,
    /// Valid, but this server does not take it.
    ImplementationSpecificError = 0x83,
    /// CONNECT: another MQTT version.
    UnsupportedProtocolVersion = 0x84,
    /// CONNECT: a valid client id that this server does not take.
    ClientIdentifierNotValid = 0x85,
    /// CONNECT: wrong user name or password.
    BadUserNameOrPassword = 0x86,
    /// Not allowed for this client.
    NotAuthorized = 0x87,
    /// CONNECT: not now.
    ServerUnavailable = 0x88,
    /// Try again later.
    ServerBusy = 0x89,
    /// This client has been barred.
    Banned = 0x8A,
    /// DISCONNECT: the server goes away.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported.
    BadAuthenticationMethod = 0x8C,
    /// DISCONNECT: nothing came for 1.5 times the keep alive.
    KeepAliveTimeout = 0x8D,
    /// DISCONNECT: another connection uses this client id.
    SessionTakenOver = 0x8E,
    /// A valid filter that this server does not take.
    TopicFilterInvalid = 0x8F,
    /// A valid topic name that this server does not take.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More publishes at once than Receive Maximum.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias above the maximum, or not yet set.
    TopicAliasInvalid = 0x94,
    /// Larger than Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// Too many messages a second.
    MessageRateTooHigh = 0x96,
    /// A limit of this server is reached.
    QuotaExceeded = 0x97,
    /// Closed by an operator.
    AdministrativeAction = 0x98,
    /// The payload is not what Payload Format Indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A,
    /// This QoS is not supported.
    QosNotSupported = 0x9B,
    /// Use another server for now.
    UseAnotherServer = 0x9C,
    /// Use another server from now on.
    ServerMoved = 0x9D,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Too many connections a second.
    ConnectionRateExceeded = 0x9F,
    /// The longest time that this connection may last.
    MaximumConnectTime = 0xA0,
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The wire value.
    #[must_use]
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// 0x80 and above.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }
}

/// CONNACK return codes of MQTT 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectReturnCode {
    /// 0x00
    Accepted = 0,
    /// 0x01
    UnacceptableProtocolVersion = 1,
    /// 0x02
    IdentifierRejected = 2,
    /// 0x03
    ServerUnavailable = 3,
    /// 0x04
    BadUserNameOrPassword = 4,
    /// 0x05
    NotAuthorized = 5,
}

impl ConnectReturnCode {
    /// The return code of a wire value, or `None` where 3.1.1 has none.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Accepted),
            1 => Some(Self::UnacceptableProtocolVersion),
            2 => Some(Self::IdentifierRejected),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// The reason code of 5.0 that says the same.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::Accepted => ReasonCode::Success,
            Self::UnacceptableProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::IdentifierRejected => ReasonCode::ClientIdentifierNotValid,
            Self::ServerUnavailable => ReasonCode::ServerUnavailable,
            Self::BadUserNameOrPassword => ReasonCode::BadUserNameOrPassword,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
        }
    }

    /// How a reason for refusing CONNECT is said to a 3.1.1 client, or `None` where it has no words for it: the
    /// connection is then closed without CONNACK (3.1.1 section 3.2.2.3, [MQTT-3.2.2-6 of 3.1.1]).
    #[must_use]
    pub fn for_reason(reason: ReasonCode) -> Option<Self> {
        use ReasonCode as R;
        match reason {
            R::Success => Some(Self::Accepted),
            R::UnsupportedProtocolVersion => Some(Self::UnacceptableProtocolVersion),
            R::ClientIdentifierNotValid => Some(Self::IdentifierRejected),
            R::ServerUnavailable
            | R::ServerBusy
            | R::QuotaExceeded
            | R::ServerShuttingDown
            | R::ConnectionRateExceeded
            | R::UseAnotherServer
            | R::ServerMoved => Some(Self::ServerUnavailable),
            R::BadUserNameOrPassword => Some(Self::BadUserNameOrPassword),
            R::NotAuthorized | R::Banned => Some(Self::NotAuthorized),
            R::GrantedQos1
            | R::GrantedQos2
            | R::DisconnectWithWillMessage
            | R::NoMatchingSubscribers
            | R::NoSubscriptionExisted
            | R::ContinueAuthentication
            | R::ReAuthenticate
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::BadAuthenticationMethod
            | R::KeepAliveTimeout
            | R::SessionTakenOver
            | R::TopicFilterInvalid
            | R::TopicNameInvalid
            | R::PacketIdentifierInUse
            | R::PacketIdentifierNotFound
            | R::ReceiveMaximumExceeded
            | R::TopicAliasInvalid
            | R::PacketTooLarge
            | R::MessageRateTooHigh
            | R::AdministrativeAction
            | R::PayloadFormatInvalid
            | R::RetainNotSupported
            | R::QosNotSupported
            | R::SharedSubscriptionsNotSupported
            | R::MaximumConnectTime
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported => None,
        }
    }
}
