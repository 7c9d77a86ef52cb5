//! The gateway over real TCP: what devices see. The state machine itself is tested in `common::mqtt::server`.

mod bench;
mod client;
mod full_disk;
mod large;
mod limits;
mod messages;
mod restart;
mod sessions;
mod sys;
