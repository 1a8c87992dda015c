//! The files that SINO adds to Debian's root tree, as data: path, mode, content.
//!
//! Pure: the configuration goes in, a list comes out. [`crate::root_tree`] writes it.

use crate::config::{Config, System};
use sino_boot::layout;

/// What a path becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file with its mode.
    File(u32, String),
    /// A symbolic link.
    Link(&'static str),
}

/// A file to write, or to replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFile {
    /// Path below the root, without a leading slash.
    pub path: String,
    /// What it becomes.
    pub content: Content,
}

/// Units that make no sense on a live host, or would report a failure on a healthy one.
const MASKED: &[&str] = &[
    // The root is the image of this build; new packages come with a new stick.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "man-db.timer",
    // Only on request: a host that checks disks by itself disturbs its guests.
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "xfs_scrub_all.timer",
    // SINO's own waits for the address instead.
    "systemd-networkd-wait-online.service",
    // SINO starts and stops the guests, those of /etc/xen/auto too.
    "xendomains.service",
    // sino-ssh-keys.service makes the keys.
    "sshd-keygen.service",
    // The medium is never written, so there is nothing to take over from it.
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    // console-setup.service does the same a little later.
    "keyboard-setup.service",
    // Fabrics are no part of a live host's boot.
    "nvmefc-boot-connections.service",
    "nvmf-autoconnect.service",
];

/// Wants of Debian's that are dropped: the units themselves can be started as before (systemd.unit(5), `.wants/`).
const UNWANTED: &[&str] = &[
    // Its CPUQuota= is for scrubs that are started by no timer here, and has systemd turn on the CPU controller of control groups for all:
    // with that systemd itself has half of the CPUs, and each service a part of the rest, that of the guests among them.
    "system.slice.wants/system-xfs_scrub.slice",
];

/// Our own units that are switched on, as links below `/etc/systemd/system`.
const ENABLED: &[(&str, &str)] = &[
    ("sysinit.target.wants/sino.service", "../sino.service"),
    ("sysinit.target.wants/sino-keeper.service", "../sino-keeper.service"),
    ("network-online.target.wants/sino-network-online.service", "../sino-network-online.service"),
    ("multi-user.target.wants/sino-ssh-keys.service", "../sino-ssh-keys.service"),
    ("multi-user.target.wants/sino-guests.service", "../sino-guests.service"),
];

const SUPERVISOR: &str = "\
[Unit]
Description=SINO: network, storage and guests of this host
Documentation=man:sino(8)
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target network.target ssh.service
Wants=network.target
StartLimitIntervalSec=0

# It runs since before systemd: the start command moves it here, and starts one if there is none.
[Service]
Type=forking
PIDFile=/run/sino/supervisor.pid
ExecStart=/usr/sbin/sino-init adopt
Restart=always
RestartSec=200ms
KillMode=process
# Stops the guests if the service is stopped, but not at a restart.
ExecStop=-/usr/sbin/sino-init stopping
TimeoutStopSec=3700

[Install]
WantedBy=sysinit.target
";

/// At a shutdown the guests go first: before Debian's script ends the Xen daemons, which come up after sino.service and so go
/// down before it, and before /srv is unmounted, where memory of guests may be saved. Up to an hour can be configured.
const GUESTS_DOWN: &str = "\
[Unit]
Description=SINO: the guests go down before the host
Documentation=man:sino(8)
# Among the rest lvm2's blk-availability.service: at its stop it unmounts everything that lies on logical volumes.
After=sino.service xen.service srv.mount blk-availability.service network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop=/usr/sbin/sino guests stop
StandardOutput=journal+console
TimeoutStopSec=3700

[Install]
WantedBy=multi-user.target
";

const KEEPER: &str = "\
[Unit]
Description=SINO: what the root file system lies on
Documentation=man:sino(8)
DefaultDependencies=no
ConditionPathExists=/run/sino/keeper.pid
# The root lies on what it holds, until the end.
RefuseManualStop=yes

[Service]
Type=forking
PIDFile=/run/sino/keeper.pid
ExecStart=/usr/sbin/sino-init adopt-keeper
KillMode=process

[Install]
WantedBy=sysinit.target
";

const ONLINE: &str = "\
[Unit]
Description=Wait until SINO has an address
Documentation=man:sino(8)
After=sino.service
Before=network-online.target

# A network that does not come is said by the supervisor; whoever waits for it goes on without.
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/usr/sbin/sino network wait --timeout 30

[Install]
WantedBy=network-online.target
";

const SSH_KEYS: &str = "\
[Unit]
Description=Make this host's ssh key
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N \"\" -C \"\" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
";

const SSH_NEEDS_KEYS: &str = "[Unit]\nWants=sino-ssh-keys.service\nAfter=sino-ssh-keys.service\n";

const SSH: &str = "\
# A live host has no other account; its password is the image's configuration.
PermitRootLogin yes
PasswordAuthentication yes
HostKey /etc/ssh/ssh_host_ed25519_key
UseDNS no
";

const SMARTD: &str =
    "# A host whose disks say nothing about their health is no failure.\nsmartd_opts=\"--quit=never\"\n";

const MODPROBE: &str = "\
# systemd-networkd asks for nl80211 at each start; a host without wireless cards need not load that stack.
alias net-pf-16-proto-16-family-nl80211 off
# Probing for a drive that is not there takes seconds; the beeper is nobody's.
blacklist floppy
blacklist pcspkr
";

const MANAGER: &str = "\
# A console or disk that is slow to appear must not cost the login on it.
[Manager]
DefaultDeviceTimeoutSec=300s
";

/// The supervisor has started the daemons. Debian's script finds them running, unless it looks while they start.
const XEN: &str = "\
# The Xen daemons run since before systemd: this service waits until they do, finds them, and takes them into its group.
[Unit]
After=sino.service

[Service]
Environment=XENCONSOLED_ARGS=--log=guest
ExecStartPre=-/usr/bin/flock --timeout 60 /run/sino/xen.lock true
ExecStartPost=-/bin/sh -c 'for file in /run/xenstore.pid /run/xenconsoled.pid /run/qemu-dom0.pid; do \
[ ! -s $file ] || cat $file > /sys/fs/cgroup/system.slice/xen.service/cgroup.procs; done'
";

/// Stage two's udevd ends before systemd's begins, also when a slow disk has held it beyond the hand-over.
const UDEVD: &str = "\
# One udevd at a time: while a driver or volume still waits for stage two's, this one begins later.
[Service]
ExecStartPre=-+/usr/sbin/sino-init make-way
TimeoutStartSec=240
";

const OUR_MOUNTS: &str = "\
# The root lies on these: systemd must not take them down before the root itself, and cannot.
[Unit]
DefaultDependencies=no
";

const FSTAB: &str = "# The root of a live system: an overlay that is mounted before systemd starts.\n";

/// All files for this configuration. `facts` is the content of `/etc/sino-build`.
#[must_use]
pub fn all(config: &Config, facts: &str) -> Vec<RootFile> {
    let system = &config.system;
    let file = |path: &str, content: &str| RootFile {
        path: path.to_owned(),
        content: Content::File(0o644, content.to_owned()),
    };
    let link = |path: String, target: &'static str| RootFile { path, content: Content::Link(target) };
    let mut files = vec![
        file("etc/fstab", FSTAB),
        file("etc/hostname", &format!("{}\n", system.hostname)),
        file("etc/hosts", &hosts(&system.hostname)),
        file("etc/machine-id", ""),
        file("etc/timezone", &format!("{}\n", system.timezone)),
        file("etc/locale.gen", &format!("{} UTF-8\n", system.locale)),
        file("etc/locale.conf", &format!("LANG={}\n", system.locale)),
        file("etc/default/locale", &format!("LANG={}\n", system.locale)),
        file("etc/default/keyboard", &keyboard(system)),
        file("etc/default/smartmontools", SMARTD),
        file("etc/sino-build", facts),
        file("etc/modprobe.d/sino.conf", MODPROBE),
        file("etc/systemd/system.conf.d/sino.conf", MANAGER),
        file("etc/ssh/sshd_config.d/sino.conf", SSH),
        file("etc/systemd/system/run-sino-.mount.d/sino.conf", OUR_MOUNTS),
        file("etc/systemd/system/xen.service.d/sino.conf", XEN),
        file("etc/systemd/system/systemd-udevd.service.d/sino.conf", UDEVD),
        file("etc/systemd/system/sino.service", SUPERVISOR),
        file("etc/systemd/system/sino-keeper.service", KEEPER),
        file("etc/systemd/system/sino-network-online.service", ONLINE),
        file("etc/systemd/system/sino-ssh-keys.service", SSH_KEYS),
        file("etc/systemd/system/sino-guests.service", GUESTS_DOWN),
        file("etc/systemd/system/ssh.service.d/sino.conf", SSH_NEEDS_KEYS),
        file("root/linuxexample.cfg", include_str!("../files/root/linuxexample.cfg")),
        file("root/windowsexample.cfg", include_str!("../files/root/windowsexample.cfg")),
        link("usr/sbin/sino-init".into(), "sino"),
        link("usr/sbin/srv".into(), "sino"),
        // Stage one and the supervisor write what the consoles show before the login.
        link("etc/issue".into(), layout::ISSUE),
        link("etc/resolv.conf".into(), layout::RESOLV_CONF),
        // It asks for a socket to a hypervisor above, which a host does not have, and reports a failure.
        link("etc/systemd/system-generators/systemd-ssh-generator".into(), "/dev/null"),
    ];
    files.extend(MASKED.iter().map(|unit| link(format!("etc/systemd/system/{unit}"), "/dev/null")));
    files.extend(UNWANTED.iter().map(|want| link(format!("etc/systemd/system/{want}"), "/dev/null")));
    files.extend(ENABLED.iter().map(|(path, target)| link(format!("etc/systemd/system/{path}"), target)));
    files
}

fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
}

fn keyboard(system: &System) -> String {
    format!(
        "XKBMODEL=\"pc105\"\nXKBLAYOUT=\"{}\"\nXKBVARIANT=\"\"\nXKBOPTIONS=\"\"\nBACKSPACE=\"guess\"\n",
        system.keyboard
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_path_comes_once_and_is_relative() {
        let files = all(&Config::default(), "");
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths.len(), files.len());
        assert!(paths.iter().all(|path| !path.starts_with('/') && !path.contains("..")));
    }

    #[test]
    fn enabled_units_exist() {
        let files = all(&Config::default(), "");
        for (path, target) in ENABLED {
            let unit = target.trim_start_matches("../");
            assert!(path.ends_with(unit), "{path}");
            assert!(files.iter().any(|file| file.path == format!("etc/systemd/system/{unit}")), "{unit}");
        }
    }

    #[test]
    fn guests_are_stopped_by_sino_and_not_by_debian() {
        let files = all(&Config::default(), "");
        let content = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.content.clone());
        assert_eq!(content("etc/systemd/system/xendomains.service"), Some(Content::Link("/dev/null")));
        let Some(Content::File(_, unit)) = content("etc/systemd/system/sino-guests.service") else { panic!() };
        assert!(
            unit.contains("ExecStop=/usr/sbin/sino guests stop\n") && unit.contains("After=sino.service xen.service")
        );
    }

    #[test]
    fn the_configuration_is_in_the_files() {
        let mut config = Config::default();
        config.system.hostname = "node7".into();
        config.system.keyboard = "br".into();
        let text = format!("{:?}", all(&config, "facts"));
        assert!(text.contains("127.0.1.1\\tnode7") && text.contains("XKBLAYOUT=\\\"br\\\"") && text.contains("facts"));
    }
}
