//! The admin listener: `/live`, `/ready`, `/metrics`, `PUT /log-level`; a binary merges its own routes into it.
