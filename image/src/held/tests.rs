use super::*;
use crate::command;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

/// A tree with these files (path, text), and with these links (path, target).
fn tree(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for (name, text) in files {
        fs::write(path(name), text).unwrap();
    }
    for (name, target) in links {
        symlink(target, path(name)).unwrap();
    }
    place
}

fn root(programs: &'static str, files: &'static str) -> Root {
    Root { why: "a test", essential: false, programs, files }
}

fn lines(tree: &tempfile::TempDir, roots: &[Root]) -> Vec<String> {
    choose(tree.path(), roots).unwrap().paths.into_iter().collect()
}

#[test]
fn every_link_on_the_way_is_a_line_and_none_leads_out() {
    let tree = tree(
        &[("usr/bin/mawk", ""), ("usr/lib/real", ""), ("usr/bin/busy", "")],
        &[
            ("bin", "usr/bin"),
            ("etc/alternatives/awk", "/bin/mawk"),
            ("usr/bin/awk", "/etc/alternatives/awk"),
            ("usr/lib/deep", "../../../../lib/real"),
            ("lib", "usr/lib"),
            ("etc/gone", "/run/sino/issue"),
            ("etc/loop", "loop2"),
        ],
    );
    let found = lines(&tree, &[root("awk", "usr/lib/deep etc/gone etc/none")]);
    assert_eq!(
        found,
        [
            "/bin",
            "/etc/alternatives/awk",
            "/etc/gone",
            "/lib",
            "/usr/bin/awk",
            "/usr/bin/mawk",
            "/usr/lib/deep",
            "/usr/lib/real"
        ]
    );
    symlink("loop", tree.path().join("etc/loop2")).unwrap();
    let error = choose(tree.path(), &[root("", "etc/loop")]).unwrap_err().to_string();
    assert!(error.contains("too many links"), "{error}");
}

#[test]
fn wildcards_and_whole_folders_are_found() {
    let files =
        [("etc/xen/a", ""), ("etc/xen/scripts/b", ""), ("usr/lib/xen-4.20/bin/xl", ""), ("usr/lib/xen-4.20/xl", "")];
    let tree = tree(&files, &[("etc/xen/c", "/dev/null"), ("usr/bin/xenstore-ls", "../lib/xen-4.20/xl")]);
    let found = lines(&tree, &[root("xenstore* [", "etc/xen/** usr/lib/xen-*/bin/xl")]);
    assert_eq!(
        found,
        [
            "/etc/xen/a",
            "/etc/xen/c",
            "/etc/xen/scripts/b",
            "/usr/bin/xenstore-ls",
            "/usr/lib/xen-4.20/bin/xl",
            "/usr/lib/xen-4.20/xl"
        ]
    );
}

#[test]
fn scripts_bring_their_interpreters_and_pam_its_modules() {
    let tree = tree(
        &[
            ("etc/init.d/one", "#!/bin/sh -e\n"),
            ("etc/init.d/two", "#! /usr/bin/env python3\n"),
            ("usr/bin/env", ""),
            ("usr/bin/dash", ""),
            ("usr/bin/python3", ""),
            (
                "etc/pam.d/login",
                "# pam_old.so\nauth [success=1 default=ignore] pam_unix.so nullok\nauth optional pam_none.so\n",
            ),
            ("usr/lib/security/pam_unix.so", ""),
            ("usr/lib/security/pam_old.so", ""),
        ],
        &[("usr/bin/sh", "dash"), ("bin", "usr/bin")],
    );
    let found = lines(&tree, &[root("", "etc/init.d/* etc/pam.d/**")]);
    assert_eq!(
        found,
        [
            "/bin",
            "/etc/init.d/one",
            "/etc/init.d/two",
            "/etc/pam.d/login",
            "/usr/bin/dash",
            "/usr/bin/env",
            "/usr/bin/python3",
            "/usr/bin/sh",
            "/usr/lib/security/pam_unix.so"
        ]
    );
}

#[test]
fn a_program_brings_the_libraries_that_ldd_shows() {
    let held = choose(Path::new("/"), &[root("bash ls mount", "")]).unwrap();
    let programs = ["bash", "ls", "mount"].map(|name| format!("/usr/bin/{name}"));
    let text = String::from_utf8(command::run(Command::new("ldd").args(&programs)).unwrap()).unwrap();
    let paths: Vec<&str> =
        text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).collect();
    assert!(paths.iter().any(|path| path.contains("libc.so.6")), "{text}");
    for path in paths.into_iter().map(str::to_owned).chain(programs) {
        let real = fs::canonicalize(&path).unwrap();
        assert!(held.paths.contains(real.to_str().unwrap()), "{path} is not in {:#?}", held.paths);
    }
    assert!(held.paths.iter().all(|path| Path::new(path).symlink_metadata().is_ok()));
    assert!(held.bytes() > 1_000_000 && held.line().contains("libc.so.6"), "{}", held.line());
}

#[test]
fn what_is_essential_must_be_there_and_hard_links_count_once() {
    let tree = tree(&[("usr/bin/a", "12345")], &[]);
    fs::hard_link(tree.path().join("usr/bin/a"), tree.path().join("usr/bin/b")).unwrap();
    let held = choose(tree.path(), &[root("a b c", "")]).unwrap();
    assert_eq!((held.text().as_str(), held.bytes()), ("/usr/bin/a\n/usr/bin/b\n", 5));
    let essential = Root { essential: true, ..root("c", "etc/d") };
    let error = choose(tree.path(), &[essential]).unwrap_err().to_string();
    assert!(error.contains("none of: c etc/d") && error.contains("a test"), "{error}");
}
