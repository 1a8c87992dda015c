//! Which disks running domains have, whoever started them, as the disk backends of domain 0 are told in the xenstore.
//!
//! Source: libxl's `libxl_disk.c` (`device_disk_add`, the same in Xen 4.17 to 4.20) and Debian's `/etc/xen/scripts/block`, which adds
//! `physical-device-path`. Only domain 0 writes there; a guest cannot.

use super::Client;
use crate::guests::needs::Use;
use anyhow::{Result, ensure};
use std::time::Instant;

/// Where domain 0's backends are.
const BACKENDS: &str = "/local/domain/0/backend";
/// The backends that serve disks: the kernel's, blktap's, qemu's, and qemu's for virtio.
const KINDS: [&str; 4] = ["vbd", "vbd3", "qdisk", "virtio_disk"];

/// The disks of all domains that have a name; a backend that was left behind by a domain that is gone is nobody's.
///
/// # Errors
/// xenstored refuses, is gone, or has not told all by then.
pub fn disks(client: &mut Client, until: Instant) -> Result<Vec<Use>> {
    let mut uses = Vec::new();
    for kind in KINDS {
        let folder = format!("{BACKENDS}/{kind}");
        for id in client.directory(&folder)?.unwrap_or_default() {
            if id.parse::<u32>().is_err() {
                continue;
            }
            let name = client.text(&format!("/local/domain/{id}/name"))?.unwrap_or_default();
            let devices = if name.is_empty() { None } else { client.directory(&format!("{folder}/{id}"))? };
            for device in devices.unwrap_or_default() {
                ensure!(Instant::now() < until, "the xenstore was not read to its end in time");
                let mut value = |leaf: &str| client.text(&format!("{folder}/{id}/{device}/{leaf}"));
                let params = value("params")?.unwrap_or_default();
                // What a script has made of it, and of an image file that the kernel serves.
                let made = value("physical-device-path")?.unwrap_or_default();
                let writable = value("mode")?.is_none_or(|mode| mode.starts_with('w'));
                let mut paths = vec![path(&params).to_owned(), made];
                paths.dedup();
                paths.retain(|path| path.starts_with('/'));
                uses.extend(paths.into_iter().map(|path| Use { domain: name.clone(), path, writable }));
            }
        }
    }
    Ok(uses)
}

/// The path in what a backend is told: qemu's has the format before it, as in `aio:/srv/disk.img`.
fn path(params: &str) -> &str {
    if params.starts_with('/') {
        return params;
    }
    params.split_once(':').map_or("", |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::super::played::{pair, server};
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn used(domain: &str, path: &str, writable: bool) -> Use {
        Use { domain: domain.into(), path: path.into(), writable }
    }

    #[test]
    fn the_disks_of_all_running_domains_are_found_whoever_serves_them() {
        let (mut client, tree) = server();
        assert_eq!(disks(&mut client, soon()).unwrap(), [], "a xenstore without backends");
        {
            let mut tree = tree.lock().unwrap();
            let mut disk = |kind: &str, id: u32, leaf: &str, value: &str| {
                tree.set(&format!("{BACKENDS}/{kind}/{id}/51712/{leaf}"), value);
            };
            disk("vbd", 3, "params", "/dev/xvg/db");
            disk("vbd", 3, "physical-device-path", "/dev/dm-4");
            disk("vbd", 3, "mode", "w");
            disk("qdisk", 4, "params", "qcow2:/srv/a:b.img");
            disk("qdisk", 4, "mode", "r");
            disk("vbd3", 4, "params", "drbd-resource");
            disk("qdisk", 9, "params", "aio:/srv/left-behind.img");
            disk("vif", 3, "params", "/no/disk");
            tree.set("/local/domain/3/name", "db");
            tree.set("/local/domain/4/name", "by hand");
            tree.set("/local/domain/0/backend/vbd/odd/1/params", "/x");
        }
        let expected =
            [used("db", "/dev/xvg/db", true), used("db", "/dev/dm-4", true), used("by hand", "/srv/a:b.img", false)];
        assert_eq!(disks(&mut client, soon()).unwrap(), expected);
        assert!(disks(&mut client, Instant::now()).unwrap_err().to_string().contains("in time"));
    }

    #[test]
    fn a_xenstored_that_is_gone_is_an_error() {
        let (mut client, stream) = pair();
        drop(stream);
        assert!(disks(&mut client, soon()).is_err());
    }

    proptest! {
        #[test]
        fn no_word_of_the_xenstore_makes_it_panic(params in "\\PC{0,20}") {
            prop_assert!(params.ends_with(path(&params)));
        }
    }
}
