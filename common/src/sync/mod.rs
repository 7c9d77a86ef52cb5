//! What an edge and its cloud say to each other, as types and as bytes.
