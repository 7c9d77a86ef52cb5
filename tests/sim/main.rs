//! Deterministic simulation of the sync between edge and cloud: the real uplink, queue, ingest and log, on a simulated network,
//! disk and store.
//!
//! `random` drives crashes, partitions and delays from fixed seeds; `faults` has one test for each fault that the protocol
//! promises to survive, `reopen` has those that end in a new incarnation, `http` has who is let in by the real listener. `SIM_SEEDS=1000 cargo test -p robustmq-tests --test sim random` runs more seeds, `SIM_SEED=7` runs one.

mod bench;
mod cloud;
mod faults;
mod http;
mod random;
mod reopen;
