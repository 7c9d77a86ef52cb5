//! The edge: MQTT for devices, everything on disk while offline, exactly-once replication upstream.

pub mod admin;
pub mod gateway;
pub mod queue;
pub mod settings;
pub mod state;
pub mod uplink;
