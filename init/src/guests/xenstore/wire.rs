//! The messages between xenstored and its clients, as bytes.
//!
//! Source: Xen's `xen/include/public/io/xs_wire.h` and `docs/misc/xenstore.txt`: four numbers of 32 bits in the machine's own byte
//! order (type, request, transaction, length), and then the payload.

use anyhow::{Result, ensure};

/// Bytes of a message's header.
const HEADER: usize = 16;
/// The most that a payload may have, in bytes (`XENSTORE_PAYLOAD_MAX`). xenstored ends the connection of who sends more.
pub(crate) const PAYLOAD_MAX: usize = 4096;
/// The longest absolute path, in bytes (`XENSTORE_ABS_PATH_MAX`).
pub(crate) const PATH_MAX: usize = 3072;

/// What a message is (`enum xsd_sockmsg_type`), as far as SINO uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Directory = 1,
    Read = 2,
    Watch = 4,
    Unwatch = 5,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Remove = 13,
    WatchEvent = 15,
    Error = 16,
    IsDomainIntroduced = 17,
    DirectoryPart = 22,
}

impl Kind {
    /// Its number.
    pub(crate) fn number(self) -> u32 {
        self as u32
    }
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The number of its [`Kind`], or of another.
    pub(crate) kind: u32,
    /// The request that it is, or answers; 0 for events.
    pub(crate) request: u32,
    /// The transaction that it belongs to; SINO uses none.
    pub(crate) transaction: u32,
    /// The rest.
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// Its bytes.
    ///
    /// # Errors
    /// The payload is longer than the protocol allows.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let length = self.payload.len();
        ensure!(length <= PAYLOAD_MAX, "{length} bytes are more than xenstored takes at once ({PAYLOAD_MAX})");
        let mut bytes = Vec::with_capacity(HEADER + length);
        for number in [self.kind, self.request, self.transaction, u32::try_from(length)?] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        Ok(bytes)
    }
}

/// Makes messages of bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// The other side does not speak the protocol: a payload that is too long.
    pub(crate) fn next(&mut self) -> Result<Option<Message>> {
        let mut numbers = [0_u32; 4];
        let Some(header) = self.bytes.get(..HEADER) else { return Ok(None) };
        for (number, bytes) in numbers.iter_mut().zip(header.chunks_exact(4)) {
            *number = bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        }
        let [kind, request, transaction, length] = numbers;
        let length = usize::try_from(length)?;
        ensure!(
            length <= PAYLOAD_MAX,
            "what comes from xenstored is no message: {length} bytes (at most {PAYLOAD_MAX})"
        );
        let Some(payload) = self.bytes.get(HEADER..HEADER + length) else { return Ok(None) };
        let message = Message { kind, request, transaction, payload: payload.to_vec() };
        self.bytes.drain(..HEADER + length);
        Ok(Some(message))
    }
}

/// The strings of a payload: each ends with NUL, the last perhaps not.
pub(crate) fn strings(payload: &[u8]) -> Vec<String> {
    let payload = payload.strip_suffix(&[0]).unwrap_or(payload);
    if payload.is_empty() {
        return Vec::new();
    }
    payload.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_end_with_nul() {
        assert_eq!(strings(b""), Vec::<String>::new());
        assert_eq!(strings(b"a\0bc\0"), ["a", "bc"]);
        assert_eq!(strings(b"a\0\0"), ["a", ""]);
        assert_eq!(strings(b"OK"), ["OK"]);
    }

    #[test]
    fn what_is_too_long_is_refused_both_ways() {
        let long = Message { payload: vec![0; PAYLOAD_MAX + 1], ..Message::default() };
        assert!(long.bytes().is_err());
        let mut decoder = Decoder::default();
        for number in [2_u32, 1, 0, 4097] {
            decoder.push(&number.to_ne_bytes());
        }
        assert!(decoder.next().unwrap_err().to_string().contains("4097"));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            all in proptest::collection::vec((any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..6),
            piece in 1_usize..64,
        ) {
            let messages: Vec<Message> = all.into_iter()
                .map(|(kind, request, payload)| Message { kind, request, transaction: 0, payload })
                .collect();
            let bytes: Vec<u8> = messages.iter().flat_map(|message| message.bytes().unwrap()).collect();
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(message) = decoder.next().unwrap() {
                    out.push(message);
                }
            }
            prop_assert_eq!(out, messages);
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(message)) = decoder.next() {
                strings(&message.payload);
            }
        }
    }
}
