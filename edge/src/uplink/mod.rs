//! Replicates the queue upstream: each edge sequence exactly once, in order within its lane.
