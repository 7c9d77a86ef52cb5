//! Logs: one `tracing` subscriber on standard error, whose level can be changed while running.
