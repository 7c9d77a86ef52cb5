//! What every listener needs: the loopback rule, TLS, the `ready` line and shutdown.
