//! QEMU: a machine as data, its arguments, its control channel, its life.
