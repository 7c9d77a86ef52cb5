//! Load whose every message is accounted for: devices that number what they publish, and an account of what a Kafka client
//! found afterwards.
//!
//! **Invariant:** a device follows MQTT 3.1.1 to the letter (sections 4.3 and 4.4): a kept session, everything unacknowledged sent
//! again in the original order after a reconnect, PUBLISH with DUP, PUBREL without the message.
//! **Invariant:** the codec here is not the product's: `mqttbytes` for MQTT, librdkafka (kcat) for Kafka. Members of groups that live for less than
//! a second share only `kafka-protocol` with it.

pub mod account;
pub mod chores;
pub mod device;
pub mod kills;
pub mod sharers;

pub use account::{Account, DeviceAccount};
pub use device::{Device, DeviceReport, Fleet, Quality};
