//! What a host needs to stop its guests, let an administrator in, and shut down: programs and files, with the reason.
//!
//! What they load and what runs them is found by [`super::choose`]; only what no file says is listed here: programs
//! that scripts call, files that programs open by name, libraries that are loaded without a note. Not here, because
//! too large for what they are worth then: qemu-system (a guest with emulated devices depends on the medium), Python,
//! LVM (systemd-shutdown takes volumes down itself), udev's hwdb, iptables, editors and pagers.

use super::Root;

const fn essential(why: &'static str, programs: &'static str, files: &'static str) -> Root {
    Root { why, essential: true, programs, files }
}

const fn useful(why: &'static str, programs: &'static str, files: &'static str) -> Root {
    Root { why, essential: false, programs, files }
}

/// All of it. Names differ between Debian releases, so what is not there is left out.
pub const ROOTS: &[Root] = &[
    essential("process 1", "init", "usr/lib/systemd/systemd"),
    essential("what process 1 executes at the end", "", "usr/lib/systemd/systemd-shutdown"),
    essential("how people and scripts ask for the end", "systemctl", ""),
    essential("every script", "sh", ""),
    essential("taking file systems down in order", "umount", ""),
    essential("stopping guests and looking at them", "xl", "usr/lib/xen-*/bin/xl"),
    useful("SINO itself, and its supervisor, which keeps the address", "sino sino-init srv", "etc/sino-build"),
    useful(
        "systemd's parts that run, or are run by it, until the end",
        "halt journalctl loginctl poweroff reboot runlevel shutdown systemd-tty-ask-password-agent telinit \
         udevadm",
        "usr/lib/systemd/systemd-backlight usr/lib/systemd/systemd-binfmt usr/lib/systemd/systemd-cgroups-agent \
         usr/lib/systemd/systemd-executor usr/lib/systemd/systemd-journald usr/lib/systemd/systemd-logind \
         usr/lib/systemd/systemd-random-seed usr/lib/systemd/systemd-sulogin-shell usr/lib/systemd/systemd-udevd \
         usr/lib/systemd/systemd-update-utmp usr/lib/systemd/systemd-user-runtime-dir \
         usr/lib/systemd/systemd-user-sessions",
    ),
    useful(
        "units and settings, which systemd reads when it needs them, and its generators, at each reload",
        "",
        "etc/systemd/** etc/udev/udev.conf usr/lib/systemd/*.conf usr/lib/systemd/*.conf.d/** \
         usr/lib/systemd/system-environment-generators/** usr/lib/systemd/system-generators/** \
         usr/lib/systemd/system-shutdown/** usr/lib/systemd/system/** \
         usr/lib/systemd/user-environment-generators/** usr/lib/systemd/user-generators/** usr/lib/systemd/user/**",
    ),
    useful(
        "the bus between systemctl, logind and systemd",
        "dbus-daemon",
        "etc/dbus-1/** usr/lib/dbus-1.0/dbus-daemon-launch-helper usr/share/dbus-1/**",
    ),
    useful(
        "logging in on a console and by ssh",
        "agetty bash dash getty login sshd sulogin",
        "etc/pam.conf etc/pam.d/common-* etc/pam.d/login etc/pam.d/other etc/pam.d/sshd \
         etc/pam.d/systemd-user etc/security/** etc/ssh/sshd_config etc/ssh/sshd_config.d/** etc/ssl/openssl.cnf \
         usr/lib/openssh/sshd-* usr/lib/pam.d/systemd-user usr/lib/ssl/openssl.cnf",
    ),
    useful(
        "what a login and its shell read",
        "run-parts",
        "etc/bash.bashrc etc/bash_completion.d/** etc/environment etc/inputrc etc/issue etc/issue.net etc/login.defs \
         etc/motd etc/profile etc/profile.d/** etc/securetty etc/shells etc/update-motd.d/** root/.bashrc \
         root/.profile usr/lib/systemd/profile.d/** usr/lib/terminfo/** usr/share/terminfo/**",
    ),
    useful(
        "users, names and places, which the C library reads",
        "",
        "etc/default/locale etc/gai.conf etc/group etc/gshadow etc/host.conf etc/hostname etc/hosts etc/hosts.allow etc/hosts.deny etc/ld.so.cache \
         etc/ld.so.preload etc/locale.conf etc/localtime etc/mtab etc/nsswitch.conf etc/passwd etc/protocols \
         etc/resolv.conf etc/services etc/shadow usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache \
         usr/share/libc-bin/nsswitch.conf",
    ),
    // A program that maps it and then cannot read it dies of SIGBUS, so a shell needs it as much as its libraries.
    useful("the locale, which most programs map when they start", "", "usr/lib/locale/locale-archive"),
    useful(
        "libraries that others load by name: the C library's, systemd's before 256 (which has no notes about it)",
        "",
        "usr/lib/x86_64-linux-gnu/libgcc_s.so.1 usr/lib/x86_64-linux-gnu/libkmod.so.2 \
         usr/lib/x86_64-linux-gnu/liblzma.so.5 usr/lib/x86_64-linux-gnu/libnss_*.so.2 \
         usr/lib/x86_64-linux-gnu/libzstd.so.1",
    ),
    useful(
        "files and text, for scripts and for people",
        "awk basename cat cp cut dirname egrep env grep head hostname id ln ls mkdir mktemp mv readlink rm rmdir sed \
         seq sleep sort stat sync tail touch tput tr true uname which",
        "",
    ),
    useful(
        "processes, mounts, devices and the kernel's log",
        "blockdev dmesg flock kill logger losetup lsblk mount mountpoint pidof ps setsid swapoff",
        "etc/fstab",
    ),
    useful("the network", "brctl ip", "etc/iproute2/** usr/share/iproute2/**"),
    useful(
        "what stops guests, and what keeps them in order while they stop",
        "xen xenstore*",
        "etc/default/xen etc/xen/** usr/lib/xen-*/bin/libxl-save-helper \
         usr/lib/xen-*/bin/oxenstored usr/lib/xen-*/bin/xen-init-dom0 usr/lib/xen-*/bin/xenconsole \
         usr/lib/xen-*/bin/xenconsoled usr/lib/xen-*/bin/xenstored usr/lib/xen-common/bin/xen-dir \
         usr/lib/xen-common/bin/xen-toolstack* \
         usr/lib/xen-common/bin/xen-utils-wrapper usr/lib/xen-common/bin/xen-version",
    ),
    useful(
        "Debian's script that stops Xen's daemons, and what it calls",
        "invoke-rc.d service start-stop-daemon",
        "etc/default/rcS etc/init.d/xen etc/lsb-base-logging.sh usr/lib/init/** usr/lib/lsb/**",
    ),
];
