//! Builds the SINO live image: Debian root tree, initramfs archive, squashfs, menus, hybrid ISO; and runs it in QEMU.
//!
//! [`build::build`] is the whole way. The tests use it with a small root of their own ([`build::Root::Directory`]).

pub mod build;
pub mod cache;
pub mod closure;
pub mod command;
pub mod config;
pub mod cpio;
pub mod demo;
pub mod efi;
pub mod guests;
pub mod held;
pub mod image_facts;
pub mod initramfs;
pub mod iso;
pub mod local_repository;
pub mod medium;
pub mod menu;
pub mod menu_grub;
pub mod menu_isolinux;
pub mod microcode;
pub mod module_set;
pub mod output;
pub mod packages;
pub mod progress;
pub mod qemu;
pub mod root_files;
pub mod root_tree;
pub mod squashfs;
pub mod tree;
pub mod verity;
pub mod workspace;
