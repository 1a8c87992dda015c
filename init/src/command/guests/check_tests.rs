use super::*;
use crate::guests::survey::{self, survey};
use std::fs;

struct Played(tempfile::TempDir);

impl Played {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["srv/autostart", "etc/xen/auto", "sys/class/net/xenbr0/bridge"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("srv/vmlinuz"), "").unwrap();
        Self(root)
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::write(&path, text).unwrap();
        path
    }

    fn guest(&self, path: &str, name: &str, more: &str) -> PathBuf {
        self.file(path, &format!("name = '{name}'\nmemory = 100\nkernel = '/srv/vmlinuz'\n{more}\n"))
    }

    fn all(&self, toml: &str) -> Checked {
        let config: Config = toml::from_str(toml).unwrap();
        let running = BTreeSet::new();
        let host = survey::Host { root: self.0.path(), memory: None, groups: &[], running: &running, disks: &[] };
        let survey = survey(&host, &config, &Wanted::default());
        all(self.0.path(), &config, &[], &survey)
    }

    fn given(&self, files: &[PathBuf], running: &[&str]) -> Checked {
        let running = running.iter().map(|&name| name.to_owned()).collect();
        given(self.0.path(), files, &[], &running, &BTreeMap::new(), &[])
    }
}

#[test]
fn each_file_is_ok_or_told_what_is_wrong_with_it() {
    let played = Played::new();
    played.guest("srv/autostart/db.cfg", "db", "");
    played.guest("srv/autostart/web.cfg", "web", "vif = ['bridge=xenbr7']");
    played.file("srv/autostart/odd.cfg", "name = 'odd'\nmemory = = 3\n");
    played.file("srv/autostart/readme.txt", "");
    let checked = played.all("[guest.db]\nafter = ['wbe']\n[guest.gone]\nconfig = '/srv/gone.cfg'\n");
    let wrong: Vec<(&str, bool)> = checked.files.iter().map(|file| (file.file.as_str(), file.wrong())).collect();
    let expected = [
        ("/srv/autostart/db.cfg", false),
        ("/srv/autostart/odd.cfg", true),
        ("/srv/autostart/readme.txt", false),
        ("/srv/autostart/web.cfg", true),
        ("/srv/gone.cfg", true),
    ];
    assert_eq!(wrong, expected);
    let text = text(&checked);
    assert!(text.contains("/srv/autostart/db.cfg (db): ok\n"), "{text}");
    assert!(text.contains("/srv/autostart/web.cfg (web): wrong\n  there is no bridge xenbr7"), "{text}");
    assert!(
        text.contains("/srv/autostart/odd.cfg (odd): wrong\n  ") && text.contains("\n  line 2, column 10: "),
        "{text}"
    );
    assert!(text.contains("readme.txt: ok\n  note: is left out"), "{text}");
    assert!(text.contains("db is after wbe, which there is not") && text.contains("did you mean web?"), "{text}");
    assert!(text.ends_with("5 files, 3 wrong\n"), "{text}");
    assert!(checked.wrong() && checked.others.iter().all(|note| note.wrong), "{checked:?}");
    assert!(!text.contains("cannot be used"), "it is told once: {text}");
}

#[test]
fn nothing_wrong_is_nothing_wrong_and_tables_without_files_are() {
    let played = Played::new();
    assert!(text(&played.all("")).starts_with("no guests' files"));
    played.guest("etc/xen/auto/db", "db", "vif = ['bridge=xenbr0']");
    let checked = played.all("");
    assert!(!checked.wrong(), "{checked:?}");
    assert_eq!(text(&checked), "/etc/xen/auto/db (db): ok\n1 file, nothing wrong with it\n");
    let checked = played.all("[guest.dbb]\norder = 1\n");
    assert!(checked.wrong() && text(&checked).contains("did you mean db?"), "{checked:?}");
}

#[test]
fn given_files_are_checked_wherever_they_are() {
    let played = Played::new();
    let good = played.guest("a.cfg", "a", "vif = ['bridge=xenbr0']");
    let bad = played.guest("b", "b", "vif = ['bridge=xenbr7']");
    let twice = played.guest("a2.cfg", "a", "");
    let nameless = played.file("c.cfg", "memory = 5\n");
    let folder = played.0.path().join("srv");
    let checked = played.given(&[good, bad, twice, nameless, folder, "/no/such".into()], &["x"]);
    let wrong: Vec<bool> = checked.files.iter().map(CheckedFile::wrong).collect();
    assert_eq!(wrong, [false, true, true, true, true, true], "{checked:?}");
    assert!(checked.files[1].notes[0].text.contains("no bridge xenbr7"), "{checked:?}");
    assert!(checked.files[1].notes[0].text.starts_with("line 4: "), "{checked:?}");
    let running = played.given(&[played.0.path().join("b")], &["b"]);
    assert!(!running.wrong() && running.files[0].notes[0].text.contains("runs"), "{running:?}");
}

#[test]
fn without_xl_the_rest_holds() {
    let played = Played::new();
    played.guest("srv/autostart/db.cfg", "db", "");
    let mut checked = played.all("");
    checked.ask(Err(anyhow::anyhow!("no program xl")), Duration::from_secs(1));
    assert_eq!(
        text(&checked),
        "/srv/autostart/db.cfg (db): ok\nxl was not asked: no program xl\n1 file, nothing wrong with it\n"
    );
    checked.ask(Ok(Xl::new("/no/such/xl")), Duration::from_secs(5));
    assert!(!checked.wrong() && checked.xl_not_asked.unwrap().contains("cannot be run"));
}
