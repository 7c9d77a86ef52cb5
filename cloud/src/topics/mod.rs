//! The catalogue: topic names, ids, partition counts and configuration.
