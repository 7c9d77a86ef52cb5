//! Stock clients as programs: kcat, and those under `tests/clients` in Python, Java and JavaScript.

pub mod kcat;
pub mod programs;
