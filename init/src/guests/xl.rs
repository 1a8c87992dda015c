//! Runs `xl`, each time with a deadline.
