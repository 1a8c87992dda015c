//! Finds the UEFI firmware (OVMF) that Debian's package brings.
//!
//! Debian 12 and 13 have it in different files and sizes; the first of a short list that is there is taken.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// UEFI firmware for QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UefiFiles {
    /// One file with code and variables; what the guest writes to its variables is lost.
    Whole(PathBuf),
    /// Code, and a template of the variables.
    Flash {
        /// The code.
        code: PathBuf,
        /// The variables' first content.
        variables: PathBuf,
    },
}

const WHOLE: &str = "usr/share/ovmf/OVMF.fd";
const FLASH: [(&str, &str); 2] = [
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
];

impl UefiFiles {
    /// Looks below `root`, which is `/` outside of tests.
    ///
    /// # Errors
    /// None of the known files is there.
    pub fn find(root: &Path) -> Result<Self> {
        let whole = root.join(WHOLE);
        if whole.is_file() {
            return Ok(Self::Whole(whole));
        }
        for (code, variables) in FLASH {
            let (code, variables) = (root.join(code), root.join(variables));
            if code.is_file() && variables.is_file() {
                return Ok(Self::Flash { code, variables });
            }
        }
        bail!("no UEFI firmware for QEMU at /{WHOLE} or /{}; install it: apt-get install ovmf", FLASH[0].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_file_is_preferred_then_a_complete_pair_and_the_error_names_the_package() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        assert!(UefiFiles::find(root.path()).unwrap_err().to_string().contains("apt-get install ovmf"));
        let code = put(FLASH[0].0);
        assert!(UefiFiles::find(root.path()).is_err(), "code without variables");
        let variables = put(FLASH[0].1);
        assert_eq!(UefiFiles::find(root.path()).unwrap(), UefiFiles::Flash { code, variables });
        let whole = put(WHOLE);
        assert_eq!(UefiFiles::find(root.path()).unwrap(), UefiFiles::Whole(whole));
    }
}
