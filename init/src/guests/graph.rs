//! The order of guests: levels, cycles, unknown names.
