//! Runs the tools that the build is made of, and explains a failure with the tool's own words.
//!
//! A failed tool's error holds its whole command line, its exit status and the end of what it said. A tool that is
//! not installed is an error that names the Debian package. Tools never read from the terminal.

use anyhow::{Context, Result, anyhow, bail};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Output, Stdio};

/// Which Debian package a tool comes from.
const PACKAGES: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("mksquashfs", "squashfs-tools"),
    ("veritysetup", "cryptsetup-bin"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
    ("mcopy", "mtools"),
    ("mmd", "mtools"),
    ("grub-mkimage", "grub-common"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("dpkg-query", "dpkg"),
    ("perl", "perl-base"),
];

/// How many lines of a failed tool's output go into the error.
const TAIL_LINES: usize = 30;

/// Runs a tool to its end and returns what it wrote to standard output.
///
/// # Errors
/// The tool is not installed, cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null());
    let output = command.output().map_err(|error| not_started(command, &error))?;
    checked(command, output)
}

/// As [`run`], with `input` on the tool's standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    let mut stdin = child.stdin.take().context("the tool's standard input is not a pipe")?;
    let written = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("waiting for {}", line(command)))?;
    let stdout = checked(command, output)?;
    // A tool that ends well without reading everything has got what it needs.
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("writing to {}", line(command)))
        }
        _ => Ok(stdout),
    }
}

/// The command line as a person would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let mut text = quoted(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        // Writing to a String cannot fail.
        let _ = write!(text, " {}", quoted(&argument.to_string_lossy()));
    }
    text
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    let package = PACKAGES.iter().find(|(tool, _)| *tool == program).map(|(_, package)| *package);
    match (error.kind(), package) {
        (ErrorKind::NotFound, Some(package)) => {
            anyhow!("the tool {program} is not installed; install it with: apt-get install {package}")
        }
        (ErrorKind::NotFound, None) => anyhow!("the tool {program} is not installed"),
        _ => anyhow!("{} cannot be started: {error}", line(command)),
    }
}

fn checked(command: &Command, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = tail(&String::from_utf8_lossy(&output.stderr));
    if said.is_empty() {
        said = tail(&String::from_utf8_lossy(&output.stdout));
    }
    if said.is_empty() {
        "(it said nothing)".clone_into(&mut said);
    }
    bail!("a tool failed ({})\n  command: {}\n  it said:\n{said}", output.status, line(command))
}

/// The last lines of a tool's output, indented. Progress that overwrites itself counts as lines.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let kept = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    kept.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_input_go_through() {
        assert_eq!(run(Command::new("echo").arg("a b")).unwrap(), b"a b\n");
        assert_eq!(run_with_input(&mut Command::new("cat"), b"xyz").unwrap(), b"xyz");
        assert_eq!(run_with_input(&mut Command::new("true"), &vec![0; 1 << 20]).unwrap(), b"");
    }

    #[test]
    fn a_failure_has_the_command_line_and_the_words() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        for part in ["exit status: 3", "sh -c 'echo no such thing >&2; exit 3'", "    no such thing"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(run(&mut Command::new("false")).unwrap_err().to_string().contains("it said nothing"));
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let missing = std::io::Error::from(ErrorKind::NotFound);
        let text = not_started(&Command::new("mksquashfs"), &missing).to_string();
        assert!(text.contains("apt-get install squashfs-tools"), "{text}");
        let text = run(&mut Command::new("sino-no-such-tool")).unwrap_err().to_string();
        assert!(text.contains("sino-no-such-tool is not installed"), "{text}");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let long: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        let kept = tail(&long.join("\n"));
        assert_eq!(kept.lines().count(), TAIL_LINES);
        assert!(kept.ends_with("line 99"));
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(line(Command::new("a").args(["b=c", "d e", "it's", ""])), "a b=c 'd e' 'it'\\''s' ''");
    }
}
