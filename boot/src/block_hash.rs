//! BLAKE3 of a file by blocks: the hash of the whole file, made of values that several processors can compute at once and
//! that tell which block is damaged.
//!
//! A block of [`BLOCK`] bytes that begins at a multiple of [`BLOCK`] is a subtree of BLAKE3's tree; its chaining value
//! depends on its bytes and its place. Source: the BLAKE3 paper, section 2.1, and the documentation of `blake3::hazmat`.

use anyhow::{Context, Result};
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Length of a block in bytes; the file's last one may be shorter. A power of two, as BLAKE3's tree wants it; large enough
/// for a stick's own read-ahead, small enough to stay in a processor's cache.
pub const BLOCK: usize = 1 << 20;

/// The chaining value of block number `index`, whose bytes are `block` (at most [`BLOCK`] and not empty).
#[must_use]
pub fn chaining_value(index: u64, block: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index.saturating_mul(BLOCK as u64));
    hasher.update(block);
    hasher.finalize_non_root()
}

/// The hash of the whole file, from the chaining values of its blocks in order. `None` for fewer than two blocks, whose
/// values do not make up a hash.
#[must_use]
pub fn merge(values: &[ChainingValue]) -> Option<String> {
    let (left, right) = split(values)?;
    Some(merge_subtrees_root(&subtree(left)?, &subtree(right)?, Mode::Hash).to_hex().to_string())
}

fn subtree(values: &[ChainingValue]) -> Option<ChainingValue> {
    match values {
        [] => None,
        [one] => Some(*one),
        more => {
            let (left, right) = split(more)?;
            Some(merge_subtrees_non_root(&subtree(left)?, &subtree(right)?, Mode::Hash))
        }
    }
}

/// The left part is the largest power of two that leaves something to the right.
fn split(values: &[ChainingValue]) -> Option<(&[ChainingValue], &[ChainingValue])> {
    let left = values.len().checked_sub(1).filter(|most| *most > 0)?.checked_ilog2()?;
    values.split_at_checked(1 << left)
}

/// Chaining values as 64 lower-case hexadecimal digits each.
#[must_use]
pub fn to_text(values: &[ChainingValue]) -> Vec<String> {
    values.iter().map(|value| blake3::Hash::from(*value).to_hex().to_string()).collect()
}

/// Reads what [`to_text`] writes.
///
/// # Errors
/// The first text that is not 64 hexadecimal digits, by its number.
pub fn parse(texts: &[String]) -> Result<Vec<ChainingValue>> {
    let parse = |(index, text): (usize, &String)| -> Result<ChainingValue> {
        let hash = blake3::Hash::from_hex(text).with_context(|| format!("value {index} is {text:?}"))?;
        Ok(*hash.as_bytes())
    };
    texts.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_make_up_the_hash_that_everybody_else_computes() {
        for length in [BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 7, 7 * BLOCK + 5000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let values: Vec<_> = (0..).zip(bytes.chunks(BLOCK)).map(|(n, block)| chaining_value(n, block)).collect();
            assert_eq!(merge(&values).unwrap(), blake3::hash(&bytes).to_hex().to_string(), "{length}");
            assert_eq!(parse(&to_text(&values)).unwrap(), values);
        }
        assert_eq!(merge(&[]), None);
        assert_eq!(merge(&[[0; 32]]), None);
        assert!(parse(&["0g".repeat(32)]).is_err());
    }
}
