//! What the manifest says of a root image: its length, its hash, the values of its blocks, its dm-verity tree.
//!
//! The file is read once, by as many threads as there are processors.

use crate::cache::file_hash;
use crate::verity;
use anyhow::{Context, Result, anyhow};
use blake3::hazmat::ChainingValue;
use sino_boot::block_hash::{self, BLOCK};
use sino_boot::layout;
use sino_boot::manifest::RootImage;
use std::fs::File;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

/// The facts of the finished root image `image`.
///
/// # Errors
/// The file cannot be read, or has no dm-verity tree.
pub fn of(image: &Path) -> Result<RootImage> {
    let reading = || format!("reading {}", image.display());
    let file = File::open(image).with_context(reading)?;
    let size = file.metadata().with_context(reading)?.len();
    let values = chaining_values(&file, size).with_context(reading)?;
    let blake3 = match block_hash::merge(&values) {
        Some(hash) => hash,
        // A single block is the whole tree, whose hash is not made of its value.
        None => file_hash(image)?,
    };
    let path = layout::ROOT_IMAGE.to_owned();
    Ok(RootImage { path, size, blake3, blocks: block_hash::to_text(&values), verity: verity::facts(image)? })
}

/// The values of the file's blocks in order; each thread takes one stretch of them.
fn chaining_values(file: &File, size: u64) -> Result<Vec<ChainingValue>> {
    let blocks = size.div_ceil(BLOCK as u64);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = blocks.div_ceil(threads as u64).max(1);
    let hash = |stretch: Range<u64>| -> Result<Vec<ChainingValue>> {
        let mut buffer = vec![0; BLOCK];
        let value = |index| {
            let start = index * BLOCK as u64;
            let block = &mut buffer[..BLOCK.min(usize::try_from(size - start)?)];
            file.read_exact_at(block, start)?;
            Ok(block_hash::chaining_value(index, block))
        };
        stretch.map(value).collect()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..blocks)
            .step_by(usize::try_from(share)?)
            .map(|first| scope.spawn(move || hash(first..blocks.min(first + share))))
            .collect();
        let mut values = Vec::new();
        for worker in workers {
            values.extend(worker.join().map_err(|_| anyhow!("a thread that hashes has panicked"))??);
        }
        Ok(values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_values_are_those_of_the_blocks_in_order() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        for length in [1, BLOCK, BLOCK + 1, 5 * BLOCK - 3] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            fs::write(&path, &bytes).unwrap();
            let expected: Vec<_> =
                (0..).zip(bytes.chunks(BLOCK)).map(|(n, block)| block_hash::chaining_value(n, block)).collect();
            assert_eq!(chaining_values(&File::open(&path).unwrap(), length as u64).unwrap(), expected, "{length}");
        }
    }
}
