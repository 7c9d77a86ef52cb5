//! MQTT 3.1.1 and 5.0 without sockets, clocks or files: packets, a strict codec, the server core, and the topic map.
//!
//! A driver (the gateway) owns sockets, the clock and the disk. It feeds bytes to [`codec`], packets to [`server`], and
//! carries out the actions that come back.
//!
//! **Invariant:** nothing here opens a socket, reads a clock, touches a file or awaits. Time is an argument.
//! **Invariant:** no input from the network can cause a panic, or an allocation larger than the packet limit.

pub mod codec;
pub mod packet;
pub mod server;
pub mod topic_map;
