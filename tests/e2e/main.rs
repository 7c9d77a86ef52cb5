//! Real binaries, real clients. One binary, so that linking happens once.

mod archiving;
mod chores;
mod datasets;
mod edge_to_cloud;
mod edge_tokens;
mod kafka_clients;
mod kafka_frames;
mod kill_rounds;
mod many_topics;
mod mqtt_clients;
mod object_store;
mod queue_limits;
mod restore;
mod s3_servers;
mod share_groups;
mod shared_groups;
mod sharers;
mod sizes;
mod train_images;
mod uplink_tls;
