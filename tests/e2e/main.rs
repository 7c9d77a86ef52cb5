//! Real binaries, real clients. One binary, so that linking happens once.

mod edge_to_cloud;
mod kafka_clients;
mod kill_rounds;
mod mqtt_clients;
mod sizes;
