//! What an ELF file says that it loads. Sources: elf(5), ld.so(8); systemd's `docs/ELF_DLOPEN_METADATA.md`.

use anyhow::{Context, Result};
use object::LittleEndian;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use serde::Deserialize;

/// What a program or library loads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loads {
    /// The program that starts it.
    pub(super) interpreter: Option<String>,
    /// The libraries that it cannot do without.
    pub(super) needed: Vec<String>,
    /// The libraries that it loads when there is reason to; of each line the first one that exists.
    pub(super) wanted: Vec<Vec<String>>,
    /// Where it has libraries looked for first; `$ORIGIN` is the file's own folder.
    pub(super) folders: Vec<String>,
}

/// Owner and type of the notes about libraries that are loaded with dlopen(3).
const DLOPEN: (&[u8], u32) = (b"FDO", 0x407c_0c0a);

#[derive(Deserialize)]
struct Dlopen {
    soname: Vec<String>,
    #[serde(default)]
    priority: String,
}

/// Reads a file's bytes; `None` for what is no ELF file of this machine's kind.
///
/// # Errors
/// An ELF file that is damaged.
pub(super) fn loads(bytes: &[u8]) -> Result<Option<Loads>> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(bytes)?;
    let mut loads = Loads::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            loads.interpreter = Some(text(path)?);
        }
        let Some(mut notes) = segment.notes(endian, bytes)? else { continue };
        while let Some(note) = notes.next()? {
            if (note.name(), note.n_type(endian).0) == DLOPEN {
                let json = note.desc().split(|byte| *byte == 0).next().unwrap_or_default();
                let list: Vec<Dlopen> =
                    serde_json::from_slice(json).context("a note about dlopen is not as described")?;
                // What is only suggested is for tokens, TPMs, core files and the like.
                let wanted = list.into_iter().filter(|entry| entry.priority != "suggested");
                loads.wanted.extend(wanted.map(|entry| entry.soname));
            }
        }
    }
    let table = header.sections(endian, bytes)?.dynamic_table(endian, bytes)?;
    for entry in &table {
        match entry.tag {
            DT_NEEDED => loads.needed.push(text(table.string(entry)?)?),
            DT_RPATH | DT_RUNPATH => {
                loads.folders.extend(text(table.string(entry)?)?.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(Some(loads))
}

fn text(bytes: &[u8]) -> Result<String> {
    Ok(std::str::from_utf8(bytes).context("a name is not UTF-8")?.to_owned())
}
