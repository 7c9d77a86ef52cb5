//! What every listener and every `main` needs: the loopback rule, TLS, HTTP serving, the `ready` line, shutdown and exit
//! codes.
//!
//! **Invariant:** without authentication nothing listens beyond loopback unless the configuration says `insecure`.
//! **Invariant:** only [`announce_ready`] writes to standard output.

mod http;
mod listen;
mod shutdown;
mod start;
mod tls;

#[cfg(test)]
pub(crate) use http::tests as test_http;
pub use http::{HttpLimits, serve_http};
pub use listen::{Exposure, announce_ready, bind, check_exposure, listen_address};
pub use shutdown::shutdown_on_signals;
pub use start::StartError;
pub use tls::{client_tls, root_certificates, server_tls};
