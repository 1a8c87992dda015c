//! Writes a node of the guest's own part of the xenstore.
//!
//! Source: `xen/include/public/io/xs_wire.h` and `docs/misc/xenstore.txt`; the kernel passes messages through
//! `/dev/xen/xenbus` as they are (`drivers/xen/xenbus/xenbus_dev_frontend.c`).

use anyhow::{Context, Result, ensure};
use std::fs::OpenOptions;
use std::io::{Read, Write};

/// The kernel's way to the xenstore.
const DEVICE: &str = "/dev/xen/xenbus";
/// Message types.
const WRITE: u32 = 11;
const ERROR: u32 = 16;
/// Bytes of a message's head: type, request, transaction, length.
const HEAD: usize = 16;

/// Writes a node; a path without a slash in front begins at the guest's own.
pub(super) fn write(path: &str, value: &str) -> Result<()> {
    let mut device =
        OpenOptions::new().read(true).write(true).open(DEVICE).with_context(|| format!("opening {DEVICE}"))?;
    device.write_all(&message(path, value)).context("sending")?;
    let mut head = [0; HEAD];
    device.read_exact(&mut head).context("receiving")?;
    let [kind, _, _, length] = words(head);
    let mut body = vec![0; usize::try_from(length)?.min(4096)];
    device.read_exact(&mut body).context("receiving")?;
    ensure!(kind != ERROR, "{path}: {}", String::from_utf8_lossy(&body).trim_end_matches('\0'));
    Ok(())
}

/// The path ends with a NUL, the value with the message.
fn message(path: &str, value: &str) -> Vec<u8> {
    let length = u32::try_from(path.len() + 1 + value.len()).unwrap_or(u32::MAX);
    let mut bytes: Vec<u8> = [WRITE, 1, 0, length].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(path.bytes());
    bytes.push(0);
    bytes.extend(value.bytes());
    bytes
}

/// The head's numbers.
fn words(head: [u8; HEAD]) -> [u32; 4] {
    let mut words = head.chunks_exact(4).map(|word| word.try_into().map(u32::from_ne_bytes).unwrap_or_default());
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_head_path_and_value() {
        let bytes = message("data/ready", "1");
        assert_eq!(words(bytes[..HEAD].try_into().unwrap()), [WRITE, 1, 0, 12]);
        assert_eq!(&bytes[HEAD..], b"data/ready\x001");
    }
}
