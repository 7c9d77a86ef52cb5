//! One file per Kafka API: which versions, how it behaves, what is not done.
