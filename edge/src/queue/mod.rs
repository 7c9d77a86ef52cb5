//! Store-and-forward: what devices published, on disk, in order, until the cloud has it.
