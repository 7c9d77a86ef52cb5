//! The Kafka protocol: connections, frame checks, the version table, one file per API.
