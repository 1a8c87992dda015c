//! The tiny root's `/sbin/init` in the QEMU tests; all of it is in `sino_qemu_tests::payload`. Built statically.

use sino_qemu_tests::payload;

fn main() {
    let result = std::panic::catch_unwind(payload::run);
    payload::say(&format!("sino-payload: nothing left to do: {result:?}"));
    // Process 1 must not end. The host ends the machine.
    loop {
        std::thread::park();
    }
}
