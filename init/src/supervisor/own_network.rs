//! An administrator's own network (`network.managed = false`): what reads the files that are kept of it is started, and the
//! name servers of `sino.toml` are put in place.
//!
//! `systemctl enable` would have to be repeated at every boot, as its links are in `/etc`, which is in memory. So the
//! supervisor does what it does, for this boot: it follows from the files which service is wanted. Nothing here touches a
//! link.

use super::systemctl;
use crate::config::schema::Network;
use crate::identity::network_files;
use crate::network::resolv;
use sino_boot::layout;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Where `systemctl enable` makes its links. Not in `/run/systemd/system`: that folder tells programs that systemd runs already.
/// Source: `sd_booted(3)`.
const WANTED: &str = "etc/systemd/system/multi-user.target.wants";
/// Where Debian has its units.
const UNITS: &str = "/usr/lib/systemd/system";

/// Begins it, when the files that are kept have been put back. `changed`: that changed any of them. Returns what went wrong,
/// for people.
pub fn begin(root: &Path, network: &Network, changed: bool) -> Vec<String> {
    let services = network_files::services(root);
    let mut problems = Vec::new();
    for service in &services {
        if let Err(error) = want(root, service) {
            problems.push(format!("{service} is not started by itself: {error}; systemctl start {service}"));
        }
    }
    if let Err(error) = name_servers(root, network) {
        problems.push(format!("the name servers of sino.toml are not used: {}: {error}", layout::RESOLV_CONF));
    }
    if services.is_empty() && !network_files::any(root) {
        problems.push(
            "network.managed is false, and no file of systemd-networkd or ifupdown was written yet, so nobody makes the network: \
             put one into /etc/systemd/network (systemd.network(5))"
                .to_owned(),
        );
    }
    if !services.is_empty() {
        log::info!("the network is left to {}", services.join(" and "));
    }
    if root == Path::new("/") && Path::new(layout::HANDED_OVER).exists() {
        for service in &services {
            // If systemd does not answer yet, it reads the link that was just made.
            systemctl(&[if changed { "reload-or-restart" } else { "start" }, service]);
        }
    }
    problems
}

/// Has systemd start the service at its own start.
fn want(root: &Path, service: &str) -> io::Result<()> {
    let folder = root.join(WANTED);
    fs::create_dir_all(&folder)?;
    match symlink(format!("{UNITS}/{service}"), folder.join(service)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Networkd and ifupdown write no `resolv.conf` by themselves in this image; what `sino.toml` names is used, if it names any.
fn name_servers(root: &Path, network: &Network) -> io::Result<()> {
    if network.dns.is_empty() {
        return Ok(());
    }
    let path = root.join(layout::RESOLV_CONF.trim_start_matches('/'));
    let new = path.with_extension("conf.new");
    fs::write(&new, resolv::text(&network.dns, &network.search))?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_of_the_files_is_wanted_and_name_servers_are_written() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("run/sino/x", "");
        let mut network = Network { managed: false, ..Network::default() };
        let problems = begin(root.path(), &network, false);
        assert!(problems.len() == 1 && problems[0].contains("/etc/systemd/network"), "{problems:?}");
        assert!(!root.path().join(WANTED).exists() && !root.path().join("run/sino/resolv.conf").exists());
        write("etc/systemd/network/a.network", "[Match]\nName=eno1\n");
        write("usr/lib/systemd/system/systemd-networkd.service", "");
        network.dns = vec!["192.0.2.53".parse().unwrap()];
        network.search = vec!["example.org".into()];
        for _ in 0..2 {
            assert_eq!(begin(root.path(), &network, true), Vec::<String>::new());
        }
        let link = fs::read_link(root.path().join(WANTED).join("systemd-networkd.service")).unwrap();
        assert_eq!(link, Path::new("/usr/lib/systemd/system/systemd-networkd.service"));
        let text = fs::read_to_string(root.path().join("run/sino/resolv.conf")).unwrap();
        assert!(text.contains("nameserver 192.0.2.53\nsearch example.org\n"), "{text}");
    }
}
