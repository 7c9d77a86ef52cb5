//! One ordered key-value store under everything: the `Store` seam, its engines, and the key layout.
