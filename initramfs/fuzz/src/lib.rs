//! What several fuzz targets share.

/// Lays pieces into an image of `length` zero bytes, so that inputs stay small: a piece is the number of its place (two
/// bytes, in units of 64 bytes, little-endian), its length (one byte, in units of 16 bytes, 1 to 127), and its bytes.
/// Ends at a length of zero, or of more than 127, or where the input ends. Returns the image and what follows the end.
#[must_use]
pub fn sparse(mut input: &[u8], length: usize) -> (Vec<u8>, &[u8]) {
    let mut image = vec![0; length];
    while let Some(([low, high, size @ 1..=127], rest)) = input.split_first_chunk::<3>() {
        let start = usize::from(u16::from_le_bytes([*low, *high])) * 64;
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*size) * 16));
        for (place, byte) in image.iter_mut().skip(start).zip(piece) {
            *place = *byte;
        }
        input = rest;
    }
    (image, input.get(3..).unwrap_or_default())
}

/// The CRC-32 of Ethernet, GPT and LVM, without inversions; bit by bit.
#[must_use]
pub fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 })
    })
}
