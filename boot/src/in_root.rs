//! Opens files as they would be found if a folder were `/`.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How often it is tried. A try takes microseconds, and only a rename or mount within it makes another necessary.
const TRIES: usize = 1000;

/// Opens `path` below `root`; links on the way, and `..`, lead to where they would if `root` were `/`.
///
/// The kernel gives up with `EAGAIN` if anything, anywhere, is renamed or mounted while it follows a `..`; it is asked again then.
/// Source: openat2(2), `RESOLVE_IN_ROOT`.
///
/// # Errors
/// It does not exist, or cannot be opened so.
pub fn open(root: impl AsFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    for _ in 1..TRIES {
        match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn links_stay_inside_whatever_is_renamed_elsewhere() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(inside.path().join("etc")).unwrap();
        fs::write(inside.path().join("name"), "in").unwrap();
        std::os::unix::fs::symlink("../../../name", inside.path().join("etc/link")).unwrap();
        let root = fs::File::open(inside.path()).unwrap();
        let (one, other) = (outside.path().join("one"), outside.path().join("other"));
        fs::write(&one, "").unwrap();
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    fs::rename(&one, &other).unwrap();
                    fs::rename(&other, &one).unwrap();
                }
            });
            let failed = (0..20_000).find_map(|_| open(&root, "etc/link", OFlags::RDONLY).err());
            end.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
        assert_eq!(open(&root, "missing", OFlags::RDONLY).err(), Some(Errno::NOENT));
    }
}
