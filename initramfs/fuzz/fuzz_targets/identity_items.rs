//! Files of the store that holds what makes a host itself. Input: a byte for which item and how, then the content. A host
//! key's frame and base64 are put around its bytes: nothing would get past them.
#![no_main]

use sino_init::identity::items::{Item, check};
use sino_init::identity::ssh_key::{authorized_lines, is_authorized_line, public_line};

/// What neither a blank nor a comment may bring into a file that a shell executes.
const OF_THE_SHELL: &[char] = &['$', '`', ';', '&', '|', '<', '>', '(', ')', '\\', '\'', '*', '?', '!', '#', '~', '{'];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let item = match choice % 8 {
        7 if choice & 16 == 0 => Item::Leases,
        number => Item::ALL[usize::from(number)],
    };
    let framed = choice & 8 != 0 && item == Item::SshHostKeys;
    let content = if framed { frame(bytes) } else { bytes.to_vec() };
    if let Err(why) = check(item, &content) {
        assert!(!why.chars().any(char::is_control), "for the console: {why:?}");
        return;
    }
    match item {
        Item::SshHostKeys => {
            let line = public_line(&content).expect("it was right");
            let key = line.strip_suffix('\n').expect("a line");
            assert!(!key.chars().any(char::is_control), "{key:?}");
        }
        Item::AuthorizedKeys => {
            let number = authorized_lines(&content);
            let text = String::from_utf8_lossy(&content);
            assert_eq!(text.split('\n').filter(|line| is_authorized_line(line)).count(), number);
        }
        Item::Keyboard => keyboard(str::from_utf8(&content).expect("text")),
        Item::Leases | Item::NetworkFiles => {}
        Item::RootPassword | Item::Hostname | Item::MachineId | Item::Timezone => {
            let text = str::from_utf8(&content).expect("text");
            let line = text.strip_suffix('\n').expect("a line");
            // It becomes a field of /etc/shadow, or a name, or a path below a folder.
            assert!(!line.is_empty() && line.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{line:?}");
            let stays = !line.starts_with('/') && line.split('/').all(|part| !matches!(part, "" | "." | ".."));
            assert!(stays || item == Item::RootPassword, "{line:?}");
        }
    }
});

/// What a shell would make of it: nothing but assignments.
fn keyboard(text: &str) {
    for line in text.split('\n') {
        // A shell's blanks, of which a carriage return is none.
        let line = line.trim_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("a command: {line:?}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{line:?}");
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let plain = quoted.map(|value| value.replace(['(', ')'], ""));
        let plain = plain.as_deref().unwrap_or(value);
        assert!(!plain.contains(OF_THE_SHELL) && !plain.contains([' ', '\t', '"']), "{line:?}");
        assert!(!plain.chars().any(char::is_control), "{line:?}");
    }
}

/// Bytes as the private key's file has them. Sources: OpenSSH `PROTOCOL.key`, RFC 4648 section 4.
fn frame(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = b"-----BEGIN OPENSSH PRIVATE KEY-----\n".to_vec();
    for group in [b"openssh-key-v1\0", bytes].concat().chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        let letter = |place: usize| LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
        text.extend((0..4).map(|place| if place > group.len() { b'=' } else { letter(place) }));
    }
    text.extend(b"\n-----END OPENSSH PRIVATE KEY-----\n");
    text
}
