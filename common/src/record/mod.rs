//! Record batch v2 (KIP-98): validate, view, patch, slice, encode, iterate.
