//! The composition root: drives the MQTT server core, its connections, the queue and the uplink.
