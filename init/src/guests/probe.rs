//! Finds out whether a guest is ready.
