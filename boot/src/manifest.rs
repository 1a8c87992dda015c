//! The manifest: what an initramfs was built with. The image builder writes it, stage one reads it.
//!
//! Stage one mounts no root image but the one that its manifest describes (invariant 4 of the architecture).

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The only format that this code reads and writes.
pub const FORMAT: u32 = 1;

/// What this initramfs was built with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Names this build and no other, for example `20261123-a1b2c3`; the medium carries the same.
    pub build_id: String,
    /// SINO's version, for people.
    pub version: String,
    /// `uname -r` of the kernel that the modules belong to.
    pub kernel_release: String,
    /// The root image on the medium.
    pub root: RootImage,
}

/// The root image: where it lies on the medium and which bytes it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootImage {
    /// Path below the medium's root, without a leading slash.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 of the whole file, 64 lower-case hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    /// Reads a manifest from its JSON text and checks it.
    ///
    /// # Errors
    /// Text that is not such JSON (with line and column), another format, or a value that cannot be right.
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Self = serde_json::from_str(text).context("the manifest is not what the image builder writes")?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as JSON text with a final newline.
    ///
    /// # Errors
    /// A manifest that [`Manifest::parse`] would refuse.
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        let mut text = serde_json::to_string_pretty(self).context("writing the manifest as JSON")?;
        text.push('\n');
        Ok(text)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.format == FORMAT, "the manifest has format {}, this program knows format {FORMAT}", self.format);
        if !is_build_id(&self.build_id) {
            bail!("the manifest's build_id {:?} is not 1 to 64 letters, digits, '.', '-' or '_'", self.build_id);
        }
        ensure!(!self.kernel_release.is_empty(), "the manifest's kernel_release is empty");
        ensure!(self.root.size > 0, "the manifest's root.size is 0");
        let relative =
            !self.root.path.is_empty() && self.root.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        ensure!(relative, "the manifest's root.path {:?} is not a plain relative path", self.root.path);
        let hex = self.root.blake3.len() == 64
            && self.root.blake3.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(hex, "the manifest's root.blake3 {:?} is not 64 hexadecimal digits", self.root.blake3);
        Ok(())
    }
}

/// Whether `text` can be a build id: 1 to 64 ASCII letters, digits, `.`, `-` or `_`.
#[must_use]
pub fn is_build_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            build_id: "20261123-a1b2c3".into(),
            version: "0.1.0".into(),
            kernel_release: "6.12.1-amd64".into(),
            root: RootImage { path: "sino/root.squashfs".into(), size: 4096, blake3: "0f".repeat(32) },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = sample().to_text().unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), sample());
    }

    #[test]
    fn values_that_cannot_be_right_are_refused_by_name() {
        type Spoil = fn(&mut Manifest);
        let cases: [(&str, Spoil); 6] = [
            ("format", |m| m.format = 2),
            ("build_id", |m| m.build_id = "a b".into()),
            ("kernel_release", |m| m.kernel_release.clear()),
            ("root.size", |m| m.root.size = 0),
            ("root.path", |m| m.root.path = "../x".into()),
            ("root.blake3", |m| m.root.blake3 = "xyz".into()),
        ];
        for (word, spoil) in cases {
            let mut manifest = sample();
            spoil(&mut manifest);
            let error = manifest.to_text().unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_truncated_manifest_is_an_error_with_its_place() {
        let text = sample().to_text().unwrap();
        let error = format!("{:#}", Manifest::parse(text.get(..40).unwrap()).unwrap_err());
        assert!(error.contains("line"), "{error}");
    }
}
