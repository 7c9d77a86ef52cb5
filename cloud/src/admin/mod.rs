//! JSON for an operator and metrics of the cloud.
