//! Builds the SINO live image: Debian root tree, initramfs archive, squashfs, menus, hybrid ISO; and runs it in QEMU.

pub mod qemu;
