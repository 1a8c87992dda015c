//! OpenSSH's keys as far as they must be checked: whether a private key is whole, its public half, and whether a line
//! of an `authorized_keys` file lets anybody in.
//!
//! Sources: OpenSSH `PROTOCOL.key` (private keys), RFC 4253 section 6.6 and RFC 4251 section 5 (public keys), sshd(8)
//! (the format of an `authorized_keys` file), RFC 4648 section 4 (base64).

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const END: &str = "-----END OPENSSH PRIVATE KEY-----\n";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Checks that a host's private key is whole, and returns the line that belongs into its `.pub` file.
///
/// # Errors
/// What is wrong with it, in words that follow "it".
pub fn public_line(private: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(private).map_err(|_| "is not text".to_owned())?;
    let body = text.strip_prefix(BEGIN).ok_or("does not begin as an OpenSSH private key")?;
    let body = body.strip_suffix(END).ok_or("does not end as an OpenSSH private key")?;
    let bytes = decode(&body.replace('\n', "")).ok_or("is not base64 within")?;
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("is no key of OpenSSH's format")?;
    let cipher = string(&mut rest).ok_or("is cut off")?;
    if cipher != b"none" {
        return Err("needs a passphrase, which nobody could give sshd".to_owned());
    }
    // The name and the options of the key derivation.
    string(&mut rest).and_then(|_| string(&mut rest)).ok_or("is cut off")?;
    let keys = number(&mut rest).ok_or("is cut off")?;
    let public = string(&mut rest).ok_or("is cut off")?;
    let secret = string(&mut rest).ok_or("is cut off")?;
    let mut check = secret;
    let numbers = number(&mut check).zip(number(&mut check));
    if keys != 1 || !rest.is_empty() || numbers.is_none_or(|(first, second)| first != second) {
        return Err("is damaged".to_owned());
    }
    let kind = string(&mut check).and_then(word).ok_or("is damaged")?;
    let mut fields = public;
    if string(&mut fields) != Some(kind.as_bytes()) {
        return Err("has a public half of another kind".to_owned());
    }
    Ok(format!("{kind} {}\n", encode(public)))
}

/// Whether a line of an `authorized_keys` file lets somebody in: it holds a key, perhaps after options.
#[must_use]
pub fn is_authorized_line(line: &str) -> bool {
    // sshd skips these two only; with any other space in front, a line is none to it. Source: OpenSSH `auth2-pubkeyfile.c`.
    let line = line.trim_start_matches([' ', '\t']);
    if line.starts_with('#') {
        return false;
    }
    let mut fields = fields(line);
    let Some(first) = fields.next() else { return false };
    let second = fields.next();
    is_key(first, second) || second.is_some_and(|kind| is_key(kind, fields.next()))
}

/// How many lines of an `authorized_keys` file let somebody in.
#[must_use]
pub fn authorized_lines(bytes: &[u8]) -> usize {
    bytes.split(|&byte| byte == b'\n').filter(|line| is_authorized_line(&String::from_utf8_lossy(line))).count()
}

fn is_key(kind: &str, base64: Option<&str>) -> bool {
    let Some(bytes) = base64.and_then(decode) else { return false };
    let mut rest = bytes.as_slice();
    string(&mut rest) == Some(kind.as_bytes()) && string(&mut rest).is_some_and(|part| !part.is_empty())
}

/// The fields of a line; blanks between double quotes (in options) do not part them.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    line.split(move |letter: char| {
        let quote = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        quoted ^= quote;
        !quoted && matches!(letter, ' ' | '\t' | '\r')
    })
    .filter(|field| !field.is_empty())
}

/// Letters, digits and hyphens; also dots and `@`, which FIDO keys and certificates have.
fn word(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'@');
    (!text.is_empty() && text.bytes().all(plain)).then_some(text)
}

/// Takes a number of four bytes from the front.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*bytes))
}

/// Takes a string, which has its length before it, from the front.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &byte in group {
            let value = if byte == b'=' { 0 } else { ALPHABET.iter().position(|&letter| letter == byte)? };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bytes.extend(bits.to_be_bytes().iter().skip(1));
    }
    // An `=` before the end would be an empty place there, too.
    let end = text.len().checked_sub(padding)?;
    if text.get(..end)?.contains(&b'=') {
        return None;
    }
    bytes.truncate(bytes.len().checked_sub(padding)?);
    Some(bytes)
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([0, 0].iter()).take(3).fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        for place in 0..4usize {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            let letter = ALPHABET.get(index).copied().unwrap_or(b'=');
            text.push(if place > group.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
pub(in crate::identity) mod tests {
    use super::*;
    use proptest::prelude::*;

    use std::process::Command;
    use std::sync::OnceLock;

    /// A key as `ssh-keygen` makes it: the private and the public file.
    pub(in crate::identity) fn generated(kind: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-N", "", "-C", "", "-f"]).arg(&path);
        let done = command.status().expect("ssh-keygen is needed: apt-get install openssh-client");
        assert!(done.success());
        let read = |path| std::fs::read_to_string(path).unwrap();
        (read(path.clone()), read(path.with_extension("pub")))
    }

    /// The same key for all tests.
    pub(in crate::identity) fn pair() -> &'static (String, String) {
        static PAIR: OnceLock<(String, String)> = OnceLock::new();
        PAIR.get_or_init(|| generated("ed25519"))
    }

    #[test]
    fn the_public_half_is_what_ssh_keygen_wrote() {
        for kind in ["ed25519", "rsa", "ecdsa"] {
            let (private, public) = generated(kind);
            assert_eq!(public_line(private.as_bytes()).unwrap().trim(), public.trim());
        }
    }

    #[test]
    fn a_key_that_is_cut_off_or_changed_is_refused() {
        let private = &pair().0;
        for end in 0..private.len() {
            assert!(public_line(&private.as_bytes()[..end]).is_err(), "cut at {end}");
        }
        let zeros = vec![0; private.len()];
        assert!(public_line(&zeros).is_err());
        // A line of the middle is gone, the frame is whole.
        let lines: Vec<&str> = private.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line).collect();
        assert!(public_line((lines.join("\n") + "\n").as_bytes()).is_err());
    }

    #[test]
    fn lines_with_keys_are_told_from_others() {
        let key = pair().1.trim();
        for line in [
            key.to_owned(),
            format!("  {key} me@there"),
            format!("from=\"10.0.0.0/8, ::1\",command=\"say \\\"a b\\\"\" {key}\r"),
            format!("cert-authority {key}"),
        ] {
            assert!(is_authorized_line(&line), "{line}");
        }
        let (kind, _) = key.split_once(' ').unwrap();
        for line in [
            "",
            "# x",
            kind,
            &format!("#{key}"),
            &key[..key.len() - 9],
            &format!("{kind} AAAA"),
            "ssh-rsa x",
            &format!("\u{a0}{key}"),
            &format!("\x0b{key}"),
        ] {
            assert!(!is_authorized_line(line), "{line}");
        }
        assert_eq!(authorized_lines(format!("# no\n{key}\n\n{key} second").as_bytes()), 2);
    }

    proptest! {
        #[test]
        fn base64_goes_both_ways(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
            let _ = public_line(&bytes);
            let _ = public_line(format!("{BEGIN}{}\n{END}", encode(&[MAGIC, &bytes].concat())).as_bytes());
            let _ = is_authorized_line(&text);
            let _ = authorized_lines(&bytes);
        }
    }
}
