//! MQTT 3.1.1 and 5.0 without sockets, clocks or files: packets, a strict codec, the server core, and the topic map.
