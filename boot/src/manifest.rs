//! The manifest: what an initramfs was built with. The image builder writes it, stage one reads it.
//!
//! Stage one mounts no root image but the one that its manifest describes (invariant 4 of the architecture).

use crate::block_hash;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The only format that this code reads and writes.
pub const FORMAT: u32 = 2;

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

/// The root image: where it lies on the medium and which bytes it has. The file is the squashfs, zeros up to a multiple of
/// [`VERITY_BLOCK`], and the dm-verity tree over all that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootImage {
    /// Path below the medium's root, without a leading slash.
    pub path: String,
    /// Length in bytes, with the dm-verity tree.
    pub size: u64,
    /// BLAKE3 of the whole file, 64 lower-case hexadecimal digits.
    pub blake3: String,
    /// The chaining value of each of the file's blocks of [`crate::block_hash::BLOCK`] bytes, 64 digits each: they name the
    /// damaged block, and several processors can check them at once.
    pub blocks: Vec<String>,
    /// The dm-verity tree in the file.
    pub verity: Verity,
}

/// A dm-verity tree of format 1 with SHA-256 and 4096-byte blocks, behind the data that it covers, with the superblock that
/// veritysetup(8) writes in front of it. Source: kernel `Documentation/admin-guide/device-mapper/verity.rst`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// Bytes that the tree covers, a multiple of [`VERITY_BLOCK`]; the superblock begins there.
    pub data_size: u64,
    /// The root hash, 64 lower-case hexadecimal digits.
    pub root_hash: String,
    /// The salt, lower-case hexadecimal digits.
    pub salt: String,
}

/// The length of a block of data and of a block of hashes, in bytes.
pub const VERITY_BLOCK: u64 = 4096;

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
        let root = &self.root;
        ensure!(is_hash(&root.blake3), "the manifest's root.blake3 {:?} is not 64 hexadecimal digits", root.blake3);
        let values = block_hash::parse(&root.blocks).context("in the manifest's root.blocks")?;
        ensure!(
            u64::try_from(values.len()) == Ok(root.size.div_ceil(block_hash::BLOCK as u64)),
            "the manifest's root.blocks has {} values, which do not fit root.size {}",
            values.len(),
            root.size
        );
        if let Some(whole) = block_hash::merge(&values) {
            ensure!(whole == root.blake3, "the manifest's root.blocks do not make up root.blake3, but {whole}");
        }
        let verity = &root.verity;
        let fits = verity.data_size > 0
            && verity.data_size.is_multiple_of(VERITY_BLOCK)
            && verity.data_size.saturating_add(VERITY_BLOCK) < root.size;
        ensure!(fits, "the manifest's root.verity.data_size {} does not fit root.size {}", verity.data_size, root.size);
        ensure!(is_hash(&verity.root_hash), "the manifest's root.verity.root_hash is not 64 hexadecimal digits");
        ensure!(
            verity.salt.len().is_multiple_of(2) && verity.salt.len() <= 512 && is_hex(&verity.salt),
            "the manifest's root.verity.salt {:?} is not an even number of hexadecimal digits",
            verity.salt
        );
        Ok(())
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether `text` can be a build id: 1 to 64 ASCII letters, digits, `.`, `-` or `_`.
#[must_use]
pub fn is_build_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// A manifest of a root image of three blocks of zeros, for tests here and in other crates.
#[must_use]
pub fn sample_of(build_id: &str, kernel_release: &str) -> Manifest {
    let size = 3 * block_hash::BLOCK as u64;
    let zeros = vec![0; block_hash::BLOCK];
    let values: Vec<_> = (0..3).map(|index| block_hash::chaining_value(index, &zeros)).collect();
    let verity = Verity { data_size: size - 3 * VERITY_BLOCK, root_hash: "0f".repeat(32), salt: "5a".repeat(32) };
    Manifest {
        format: FORMAT,
        build_id: build_id.to_owned(),
        version: "0.1.0".to_owned(),
        kernel_release: kernel_release.to_owned(),
        root: RootImage {
            path: crate::layout::ROOT_IMAGE.to_owned(),
            size,
            blake3: block_hash::merge(&values).unwrap_or_default(),
            blocks: block_hash::to_text(&values),
            verity,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        sample_of("20261123-a1b2c3", "6.12.1-amd64")
    }

    #[test]
    fn what_is_written_is_read() {
        let text = sample().to_text().unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), sample());
    }

    #[test]
    fn values_that_cannot_be_right_are_refused_by_name() {
        type Spoil = fn(&mut Manifest);
        let cases: [(&str, Spoil); 10] = [
            ("format", |m| m.format = 1),
            ("build_id", |m| m.build_id = "a b".into()),
            ("kernel_release", |m| m.kernel_release.clear()),
            ("root.size", |m| m.root.size = 0),
            ("root.path", |m| m.root.path = "../x".into()),
            ("root.blake3", |m| m.root.blake3 = "xyz".into()),
            ("root.blocks", |m| m.root.blocks.truncate(2)),
            ("root.blocks", |m| m.root.blocks[1] = "0f".repeat(32)),
            ("data_size", |m| m.root.verity.data_size += 1),
            ("salt", |m| m.root.verity.salt = "xy".into()),
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
