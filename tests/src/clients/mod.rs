//! Stock clients as programs: kcat, and those under `tests/clients` in Python, Java and JavaScript. And the protocol by hand.

pub mod kcat;
pub mod programs;
pub mod wire;
