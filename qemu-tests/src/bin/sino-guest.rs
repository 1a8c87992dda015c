//! The `/init` of the small guests that run under the host in the QEMU tests and in the demo, and their `/sbin/poweroff`;
//! all of it is in `sino_qemu_tests::guest_payload`. Built statically.

use sino_qemu_tests::guest_payload;

fn main() {
    let called = std::env::args_os().next().unwrap_or_default();
    guest_payload::main(&called.to_string_lossy());
}
