//! The check of an ext2, ext3 or ext4 file system before it is mounted; and what is left of one that is destroyed.

use super::shell::word;
use super::tools::{Call, Heard, LONG, Output, QUIET};
use super::{Host, Problem};
use anyhow::Result;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the check found. Source of the codes: e2fsck(8), "EXIT CODE".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is sound; with what is worth saying (the journal was replayed), or nothing.
    Sound(String),
    /// Errors were corrected as far as that is safe; with what it said.
    Corrected(String),
    /// Errors are left, or it could not look; with what it said.
    Bad(String),
}

/// Executes `e2fsck -p`, which looks at the state, the mount count and the interval by itself and corrects only what is
/// safe to correct. It is never killed: its progress is its sign of life, and `progress` gets a line each tenth.
///
/// # Errors
/// e2fsck is not there.
pub fn check(host: Host<'_>, device: &Path, progress: &dyn Fn(&str)) -> Result<Checked> {
    let path = device.display().to_string();
    // "-C 1" writes "PASS CURRENT MAX DEVICE" lines to the standard output.
    let call = Call::new(&["e2fsck", "-p", "-C", "1", &path], LONG).patient();
    let (mut told, mut quiet) = (Tenth::default(), 0_u64);
    let output = host.tools.listen(&call, &mut |heard| match heard {
        Heard::Line(line) => {
            quiet = 0;
            if let Some(tenth) = told.next(line) {
                progress(&format!("checking {path}: {tenth} %"));
            }
        }
        Heard::Nothing => {
            quiet += 1;
            progress(&format!(
                "checking {path}: nothing heard of e2fsck for {} s, still waiting",
                quiet * QUIET.as_secs()
            ));
        }
    })?;
    Ok(verdict(&output))
}

/// Reads the exit code, which is a sum of bits.
fn verdict(output: &Output) -> Checked {
    let said = words(output);
    match output.code {
        Some(0) => Checked::Sound(if said.contains("recovering journal") {
            "its journal was replayed".into()
        } else {
            String::new()
        }),
        // 2, "reboot", is for a root file system that was mounted while it was changed. This one was not.
        Some(1..=3) => Checked::Corrected(said),
        _ => Checked::Bad(said),
    }
}

/// What e2fsck said, without its progress.
fn words(output: &Output) -> String {
    let lines = output.out.lines().chain(output.err.lines()).map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && pass(line).is_none()).collect();
    let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("; ");
    if last.is_empty() { output.said() } else { last }
}

/// The last tenth that was told of.
#[derive(Default)]
struct Tenth(u64);

impl Tenth {
    /// A line of progress, if it begins another tenth: percent.
    fn next(&mut self, line: &str) -> Option<u64> {
        let tenth = percent(pass(line)?) / 10 * 10;
        let more = tenth > self.0;
        self.0 = self.0.max(tenth);
        more.then_some(tenth)
    }
}

/// Pass, place in it, and its end.
fn pass(line: &str) -> Option<(u64, u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (pass, at, end) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next()?;
    (1..=5).contains(&pass).then_some((pass, at, end))
}

/// Percent of the whole: e2fsck's own weights of its five passes (its table for the completion bar).
fn percent((pass, at, end): (u64, u64, u64)) -> u64 {
    let (from, to): (u64, u64) = match pass {
        1 => (0, 70),
        2 => (70, 90),
        3 => (90, 92),
        4 => (92, 95),
        _ => (95, 100),
    };
    from + (to - from).saturating_mul(at.min(end)) / end.max(1)
}

/// Where a copy of the superblock is found on a device whose own superblock is destroyed: its block number and the
/// block size in bytes, as `e2fsck -b` and `-B` want them. Only reads.
#[must_use]
pub fn spare_superblock(device: &Path) -> Option<(u64, u64)> {
    let file = File::open(device).ok()?;
    [(32768, 4096), (8193, 1024), (16384, 2048)].into_iter().find(|(block, size)| {
        let mut magic = [0_u8; 2];
        // s_magic is 56 bytes behind the start of a superblock, in little-endian.
        file.read_exact_at(&mut magic, block * size + 56).is_ok() && magic == [0x53, 0xef]
    })
}

/// What to say of a file system that must not be written to before somebody repaired it.
#[must_use]
pub fn to_repair(device: &Path, said: &str) -> Problem {
    let path = device.display().to_string();
    Problem::new(
        format!("the file system of {path} has errors that are not safe to correct by themselves: {said}"),
        format!("save what matters from /srv first, then: srv stop; e2fsck -f {}; srv start", word(&path)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_once_each_tenth() {
        let mut told = Tenth::default();
        let lines = [
            "1 0 8 x",
            "1 1 8 x",
            "1 2 8 /dev/xvg/xvol",
            "x: clean, 11/16384 files",
            "2 13 13 x",
            "5 16 16 x",
            "5 16 16 x",
        ];
        assert_eq!(lines.iter().filter_map(|line| told.next(line)).collect::<Vec<_>>(), [10, 90, 100]);
        assert_eq!(pass("9 1 2 x"), None);
    }

    #[test]
    fn exit_codes_are_read_as_e2fsck_means_them() {
        let output = |code, out: &str| Output { code, out: out.into(), err: String::new() };
        assert_eq!(verdict(&output(Some(0), "x: clean, 11/16384 files\n")), Checked::Sound(String::new()));
        assert!(
            matches!(verdict(&output(Some(0), "x: recovering journal\n")), Checked::Sound(said) if !said.is_empty())
        );
        assert!(
            matches!(verdict(&output(Some(1), "1 1 8 x\nx: fixed.\n")), Checked::Corrected(said) if said == "x: fixed.")
        );
        assert!(matches!(verdict(&output(Some(3), "x")), Checked::Corrected(_)));
        for code in [Some(4), Some(8), Some(12), Some(32), None] {
            assert!(matches!(verdict(&output(code, "x")), Checked::Bad(_)), "{code:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(text in ".*", a: u64, b: u64, c: u64) {
            let _ = pass(&text);
            let _ = pass(&format!("{a} {b} {c} x")).map(percent);
        }
    }
}
