//! Copies a file block by block in one pass, and compares each block's BLAKE3 with the manifest's on the way.
//!
//! One thread reads at a time and in order, as a stick or a disc likes it, while the others hash and write what they have
//! read, so the medium never waits for a processor. They read and write a huge page at a time, which is two blocks: that
//! takes half as many requests to the disk and waits less (`docs/decisions/0028`). A block that cannot be read or is wrong is read once
//! more, past every cache; after that the copy ends with its place.

use anyhow::{Context, Result, anyhow, ensure};
use blake3::hazmat::ChainingValue;
use memmap2::MmapMut;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;
use sino_boot::block_hash::{self, BLOCK};
use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of a huge page of `x86_64`. Reads past the page cache go to memory that is in one piece in RAM where the kernel has such pages:
/// with pages of 4 KiB each of them is a segment of the request, and a fast disk gives half as much. It satisfies every
/// block device's alignment, too.
pub const HUGE_PAGE: usize = 2 << 20;
/// Bytes that are read and written at a time. With half as many the same copy took 1.25 times as long in the same run.
const PIECE: usize = HUGE_PAGE;
const _: () = assert!(PIECE.is_multiple_of(BLOCK));
/// Two at least: one reads while the other hashes and writes. More than this many only wait for the medium.
const THREADS: std::ops::RangeInclusive<usize> = 2..=8;

/// A copy to be made.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The file to read.
    pub from: &'a OwnedFd,
    /// The file to write, which gets the same length; `None` only verifies.
    pub to: Option<&'a OwnedFd>,
    /// Length in bytes.
    pub size: u64,
    /// The chaining value of each block ([`block_hash`]).
    pub blocks: &'a [ChainingValue],
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be read.
    Unreadable(Errno),
    /// The file ends before it.
    Missing,
    /// Its bytes are not those that were built.
    Wrong,
    /// The copy cannot be written.
    Unwritable(Errno),
}

/// A block that could not be copied, after a second attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// Its number, from 0.
    pub index: u64,
    /// What is wrong.
    pub trouble: Trouble,
}

impl fmt::Display for BadBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = BLOCK >> 20;
        write!(f, "block {} of the root image (at {} MiB) ", self.index, self.index.saturating_mul(mib as u64))?;
        match &self.trouble {
            Trouble::Unreadable(error) => write!(f, "cannot be read, twice: {error}"),
            Trouble::Missing => f.write_str("is missing: the file ends too early"),
            Trouble::Wrong => f.write_str("is not what was built, read twice"),
            Trouble::Unwritable(error) => write!(f, "cannot be written to RAM: {error}"),
        }
    }
}

impl std::error::Error for BadBlock {}

/// Where blocks are read from.
trait Source: Sync {
    /// Reads at an offset; 0 bytes behind the end.
    fn read(&self, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize>;
    /// Takes what was read out of the caches: it must not fill them beside the copy, nor be what is read a second time.
    fn forget(&self, offset: u64, length: usize);
}

/// A file, read past the page cache where its file system can do that.
struct File<'a> {
    cached: &'a OwnedFd,
    direct: Option<OwnedFd>,
}

impl Source for File<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
        rustix::io::pread(self.direct.as_ref().unwrap_or(self.cached), buffer, offset)
    }

    fn forget(&self, offset: u64, length: usize) {
        let _ = rustix::fs::fadvise(self.cached, offset, NonZeroU64::new(length as u64), Advice::DontNeed);
    }
}

struct Work<'a> {
    plan: Plan<'a>,
    source: &'a dyn Source,
    /// Where the next piece begins.
    next: Mutex<u64>,
    stop: AtomicBool,
    done: AtomicU64,
    bad: Mutex<Option<BadBlock>>,
    retried: AtomicU64,
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blocks that were right only when they were read a second time.
    pub retried: u64,
}

/// Makes the copy. `progress` is called with the number of bytes that are copied and verified, from several threads.
///
/// # Errors
/// The first block that could not be copied ([`BadBlock`] is in the chain), or no thread could be started.
pub fn copy(plan: Plan<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<Copied> {
    let _ = rustix::fs::fadvise(plan.from, 0, None, Advice::Sequential);
    copy_from(&File { cached: plan.from, direct: reopened_direct(plan.from) }, plan, progress)
}

fn copy_from(source: &dyn Source, plan: Plan<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<Copied> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = Work {
        plan,
        source,
        next: Mutex::new(0),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        bad: Mutex::new(None),
        retried: AtomicU64::new(0),
    };
    let threads = threads.clamp(*THREADS.start(), *THREADS.end());
    let mut memory = memory(threads * PIECE).context("making room for the copy's blocks")?;
    let buffers = aligned(&mut memory).chunks_exact_mut(PIECE).take(threads);
    std::thread::scope(|scope| -> Result<()> {
        let mut workers = Vec::new();
        for (number, buffer) in buffers.enumerate() {
            let thread = std::thread::Builder::new().name(format!("copy {number}")).stack_size(256 << 10);
            match thread.spawn_scoped(scope, || work.run(buffer, progress)) {
                Ok(worker) => workers.push(worker),
                // Fewer are slower, no more.
                Err(_) if number > 0 => break,
                Err(error) => return Err(anyhow!(error).context("starting a thread for the copy")),
            }
        }
        for worker in workers {
            worker
                .join()
                .map_err(|panic| anyhow!("a thread of the copy: {}", sino_boot::stage::message(panic.as_ref())))?;
        }
        Ok(())
    })?;
    let bad = work.bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(bad) = bad {
        return Err(anyhow!(bad));
    }
    let done = work.done.into_inner();
    ensure!(done == plan.size, "the copy ended after {done} of {} bytes, and no block was bad", plan.size);
    Ok(Copied { retried: work.retried.into_inner() })
}

/// Opens the same file once more for reads past the page cache; `None` where the file system has no such reads.
fn reopened_direct(file: &OwnedFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Room for so many bytes behind a multiple of [`HUGE_PAGE`].
fn memory(length: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(length + HUGE_PAGE)?;
    // Without them there are small ones.
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// From the first multiple of [`HUGE_PAGE`] on.
fn aligned(memory: &mut MmapMut) -> &mut [u8] {
    let start = memory.as_ptr().align_offset(HUGE_PAGE);
    memory.get_mut(start..).unwrap_or_default()
}

impl Work<'_> {
    /// Copies pieces until there are no more, or one of them is bad.
    fn run(&self, buffer: &mut [u8], progress: &(dyn Fn(u64) + Sync)) {
        while !self.stop.load(Ordering::Acquire) {
            match self.one(buffer) {
                Ok(None) => return,
                Ok(Some(length)) => progress(self.done.fetch_add(length, Ordering::AcqRel) + length),
                Err(bad) => {
                    self.stop.store(true, Ordering::Release);
                    let mut first = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|first| bad.index < first.index) {
                        *first = Some(bad);
                    }
                }
            }
        }
    }

    /// Copies the next piece; `None` if there is none.
    fn one(&self, buffer: &mut [u8]) -> Result<Option<u64>, BadBlock> {
        let (start, length, mut read) = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let start = *next;
            let left = self.plan.size.saturating_sub(start);
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            if length == 0 {
                return Ok(None);
            }
            *next = start.saturating_add(length as u64);
            let read = self.read(start, buffer, length);
            (start, length, read)
        };
        for (index, (at, room)) in
            (start / BLOCK as u64..).zip((0..length).step_by(BLOCK).zip(buffer.chunks_mut(BLOCK)))
        {
            let size = (length - at).min(BLOCK);
            let first = match read.trouble.take_if(|_| read.filled < at + size) {
                // What the piece's reading ended at. It did not come to the blocks behind it.
                Some(trouble) => Err(trouble),
                None if read.filled < at + size => self.read(offset(index), room, size).whole(),
                None => Ok(()),
            };
            if first.and_then(|()| self.check(index, room, size)).is_err() {
                self.source.forget(offset(index), size);
                let second = self.read(offset(index), room, size).whole();
                second.and_then(|()| self.check(index, room, size)).map_err(|trouble| BadBlock { index, trouble })?;
                self.retried.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.write(start, buffer.get(..length).unwrap_or_default())?;
        self.source.forget(start, length);
        Ok(Some(length as u64))
    }

    /// Reads so many bytes. All of the buffer is offered: past the page cache only whole sectors can be asked for.
    fn read(&self, start: u64, buffer: &mut [u8], length: usize) -> Read {
        let mut filled = 0;
        while filled < length {
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            match self.source.read(rest, start.saturating_add(filled as u64)) {
                Ok(0) => return Read { filled, trouble: Some(Trouble::Missing) },
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Read { filled, trouble: Some(Trouble::Unreadable(error)) },
            }
        }
        Read { filled, trouble: None }
    }

    fn check(&self, index: u64, buffer: &[u8], length: usize) -> Result<(), Trouble> {
        let block = buffer.get(..length).unwrap_or_default();
        let wanted = usize::try_from(index).ok().and_then(|index| self.plan.blocks.get(index));
        let right =
            || cfg!(feature = "bench-without-hash") || wanted == Some(&block_hash::chaining_value(index, block));
        if right() { Ok(()) } else { Err(Trouble::Wrong) }
    }

    fn write(&self, start: u64, piece: &[u8]) -> Result<(), BadBlock> {
        let Some(to) = self.plan.to else { return Ok(()) };
        let mut written = 0;
        while written < piece.len() {
            let at = start.saturating_add(written as u64);
            let bad = |error| BadBlock { index: at / BLOCK as u64, trouble: Trouble::Unwritable(error) };
            match rustix::io::pwrite(to, piece.get(written..).unwrap_or_default(), at) {
                Ok(0) => return Err(bad(Errno::NOSPC)),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(bad(error)),
            }
        }
        Ok(())
    }
}

/// How far a reading came.
struct Read {
    /// Bytes that are there.
    filled: usize,
    /// Why it ended before the end.
    trouble: Option<Trouble>,
}

impl Read {
    /// Whether all was read.
    fn whole(self) -> Result<(), Trouble> {
        self.trouble.map_or(Ok(()), Err)
    }
}

/// Where a block begins.
fn offset(index: u64) -> u64 {
    index.saturating_mul(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    fn values(bytes: &[u8]) -> Vec<ChainingValue> {
        (0..).zip(bytes.chunks(BLOCK)).map(|(index, block)| block_hash::chaining_value(index, block)).collect()
    }

    fn sample() -> Vec<u8> {
        (0..5 * BLOCK + 4097).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ n.to_le_bytes()[2]).collect()
    }

    fn run(from: &OwnedFd, size: usize, blocks: &[ChainingValue]) -> (Result<Copied>, Vec<u8>, u64) {
        let mut to = tempfile::tempfile().unwrap();
        let most = AtomicU64::new(0);
        let fd: OwnedFd = to.try_clone().unwrap().into();
        let result = copy(Plan { from, to: Some(&fd), size: size as u64, blocks }, &|done| {
            most.fetch_max(done, Ordering::AcqRel);
        });
        let mut copied = Vec::new();
        to.rewind().unwrap();
        to.read_to_end(&mut copied).unwrap();
        (result, copied, most.into_inner())
    }

    #[test]
    fn the_copy_is_the_source() {
        let bytes = sample();
        let (result, copied, most) = run(&file(&bytes), bytes.len(), &values(&bytes));
        assert_eq!(result.unwrap(), Copied { retried: 0 });
        assert!(copied == bytes);
        assert_eq!(most, bytes.len() as u64);
    }

    #[test]
    fn a_wrong_bit_and_a_missing_end_are_told_with_their_block() {
        let bytes = sample();
        let mut wrong = bytes.clone();
        wrong[3 * BLOCK + 77] ^= 4;
        let bad = |result: Result<Copied>| result.unwrap_err().downcast::<BadBlock>().unwrap();
        let result = run(&file(&wrong), bytes.len(), &values(&bytes)).0;
        assert_eq!(bad(result), BadBlock { index: 3, trouble: Trouble::Wrong });
        for (end, missing) in [(4 * BLOCK + 9, 4), (3 * BLOCK + 9, 3), (2 * BLOCK, 2), (0, 0)] {
            let result = run(&file(&bytes[..end]), bytes.len(), &values(&bytes)).0;
            assert_eq!(bad(result), BadBlock { index: missing, trouble: Trouble::Missing }, "cut at {end}");
        }
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_told() {
        let bytes = sample();
        let full: OwnedFd = std::fs::File::options().write(true).open("/dev/full").unwrap().into();
        let from = file(&bytes);
        let plan = Plan { from: &from, to: Some(&full), size: bytes.len() as u64, blocks: &values(&bytes) };
        let error = copy(plan, &|_| {}).unwrap_err().downcast::<BadBlock>().unwrap();
        assert_eq!(error.trouble, Trouble::Unwritable(Errno::NOSPC));
    }

    /// A source of which some reads go wrong once.
    struct Flaky {
        bytes: Vec<u8>,
        forgotten: AtomicU64,
    }

    impl Source for Flaky {
        fn read(&self, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
            let forgotten = |block: u64| self.forgotten.load(Ordering::Acquire) & (1 << block) != 0;
            let start = usize::try_from(offset).unwrap();
            let bad =
                |block: usize| !forgotten(block as u64) && (start..start + buffer.len()).contains(&(block * BLOCK + 9));
            let mut length = buffer.len().min(self.bytes.len() - start);
            if bad(1) {
                // As a disk does it: what comes before the place that cannot be read.
                length = (BLOCK + 9 - start).next_multiple_of(512) - 512;
                if length == 0 {
                    return Err(Errno::IO);
                }
            }
            let wrong = [2, 3].map(|block| (bad(block) && length == buffer.len()).then(|| block * BLOCK + 9 - start));
            buffer[..length].copy_from_slice(&self.bytes[start..start + length]);
            for at in wrong.into_iter().flatten() {
                buffer[at] ^= 1;
            }
            Ok(length)
        }

        fn forget(&self, offset: u64, length: usize) {
            assert!(length <= PIECE);
            let first = offset / BLOCK as u64;
            for block in first..(offset + length as u64).div_ceil(BLOCK as u64) {
                self.forgotten.fetch_or(1 << block, Ordering::AcqRel);
            }
        }
    }

    #[test]
    fn a_block_that_is_right_the_second_time_is_used() {
        let bytes = sample();
        let flaky = Flaky { bytes: bytes.clone(), forgotten: AtomicU64::new(0) };
        let (unused, mut to) = (file(b""), tempfile::tempfile().unwrap());
        let fd: OwnedFd = to.try_clone().unwrap().into();
        let plan = Plan { from: &unused, to: Some(&fd), size: bytes.len() as u64, blocks: &values(&bytes) };
        assert_eq!(copy_from(&flaky, plan, &|_| {}).unwrap(), Copied { retried: 3 });
        let mut copied = Vec::new();
        to.rewind().unwrap();
        to.read_to_end(&mut copied).unwrap();
        assert!(copied == bytes);
    }
}
