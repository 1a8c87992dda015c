//! What `sino.toml` says of guests.
