//! MQTT topic <-> Kafka topic.
