//! Harness for end-to-end tests and benchmarks: real binaries on free ports, real clients.
