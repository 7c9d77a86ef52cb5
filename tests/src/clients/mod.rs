//! Stock clients as programs: kcat, and those under `tests/clients` in Python and Java.

pub mod kcat;
pub mod programs;
