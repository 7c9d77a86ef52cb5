//! Classic consumer groups: a state machine without sockets or clocks, and durable offsets.
