//! What clients see, as scripts for the [`kit`](super::kit), by what they are about.

mod connecting;
mod durability;
mod full_disk;
mod local;
mod publishing;
mod qos;
mod queues;
mod retained;
mod shared;
mod sys;
mod wills;

use super::ServerSettings;
use super::kit::Kit;

fn check(script: &str) -> Kit {
    check_with(ServerSettings::default(), script)
}

fn check_with(settings: ServerSettings, script: &str) -> Kit {
    let mut kit = Kit::new(settings);
    kit.run(script);
    kit
}
