//! The configuration loader: defaults, then the TOML file, then the environment, then flags, into one typed `Settings`.
