//! Boots one scenario and says what came of it.
//!
//! Makes the machine from the scenario, presses the keys, waits for what the scenario expects, and judges it. Whatever
//! happens, the artifacts stay in `target/qemu/NAME/`: command line, serial log, report, screenshots, result.

pub(crate) mod machine;

use crate::checks::{self, ImageFacts};
use crate::images::{Images, Paths, target};
use crate::report::{FILL, Filled, LOOK, READ_ALL, RESTART, ReadAll, Report};
use crate::scenario::{Act, Afterwards, Begin, Booted, Expect, Failed, FirmwareKind, Plugged, Scenario};
use crate::{boot_menu, faults, real_image};
use anyhow::{Context, Result, bail};
use machine::drive_file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sino_boot::record::BootRecord;
use sino_image::qemu::{Bus, EndReason, Guest};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What every direct boot has on its command line, as the menu's entries have it, with a plain kernel's consoles.
pub(crate) const DIRECT_FLAGS: &str =
    "console=tty0 console=ttyS0,115200 loglevel=5 printk.devkmsg=on usb-storage.delay_use=0 panic=-1";
/// The shell's prompt in stage one and two.
const RESCUE_PROMPT: &str = "sino rescue# ";
/// How long a guest that has reported may take for what the host asks.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What came of a scenario, in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The scenario.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// Seconds from switching the machine on to the end of the scenario.
    pub wall_s: f64,
    /// Seconds of the guest's own clock until stage one began.
    pub stage_one_at_s: f64,
    /// Seconds of the guest's own clock until stage two began.
    pub stage_two_at_s: f64,
    /// Seconds of each step, in order.
    pub steps: Vec<(String, f64)>,
    /// `MemFree` with all caches dropped after all files of the root were read, in KiB; 0 if they were not.
    pub free_kib: u64,
    /// `Shmem` then, in KiB: what all the tmpfs hold.
    pub tmpfs_kib: u64,
    /// Milliseconds that the reading took.
    pub read_all_ms: u64,
}

/// A scenario being run.
pub(crate) struct Run<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) folder: PathBuf,
    pub(crate) image: Paths,
    pub(crate) guest: Guest,
    deadline: Instant,
}

/// Runs a scenario. The figures are filled in as far as the boot came.
///
/// # Errors
/// Everything that is not as the scenario expects it, with the folder of the artifacts.
pub fn run(scenario: &Scenario, images: &Images, figures: &mut Figures) -> Result<()> {
    scenario.name.clone_into(&mut figures.name);
    let folder = target().join("qemu").join(&scenario.name);
    let result = run_in(scenario, images, &folder, figures);
    figures.passed = result.is_ok();
    let text = match &result {
        Ok(()) => "passed\n".to_owned(),
        Err(error) => format!("failed: {error:#}\n"),
    };
    // The result is returned too; the file is for whoever looks at the folder later.
    let _ = fs::write(folder.join("result.txt"), text);
    result.with_context(|| format!("scenario {} (artifacts: {})", scenario.name, folder.display()))
}

fn run_in(scenario: &Scenario, images: &Images, folder: &Path, figures: &mut Figures) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let image = images.get(scenario.image)?;
    let machine = machine::machine(scenario, &image, images, folder)?;
    let began = Instant::now();
    let guest = Guest::start(&machine, folder, scenario.budget + Duration::from_secs(15))?;
    let deadline = began + scenario.budget;
    let mut run = Run { scenario, folder: folder.to_owned(), image, guest, deadline };
    let result = run.judge(figures);
    figures.wall_s = began.elapsed().as_secs_f64();
    // A picture of how it ended; when QEMU is gone there is none.
    let _ = run.guest.screenshot("screen");
    result
}

impl Run<'_> {
    fn judge(&mut self, figures: &mut Figures) -> Result<()> {
        if let Begin::Menu(entry) = self.scenario.begin {
            boot_menu::choose(&mut self.guest, entry, self.deadline)
                .with_context(|| format!("choosing {:?} in the boot menu", entry.title()))?;
        }
        for drive in &self.scenario.drives {
            if let Plugged::After(text) = drive.plugged {
                self.guest.watch.wait_for(text, self.left())?;
                self.guest.plug(drive.name)?;
            }
        }
        for during in self.scenario.during {
            self.guest.watch.wait_for(during.when, self.left())?;
            match during.act {
                Act::See => {}
                Act::Plug(drive) => self.guest.plug(drive)?,
                Act::Pull(drive) => self.guest.unplug(drive)?,
                Act::Throttle(drive, bytes) => self.guest.throttle(drive, bytes)?,
            }
        }
        let wrong = match self.scenario.expect {
            Expect::Booted(wanted) => self.booted(wanted, figures)?,
            Expect::Failed(wanted) => self.failed(wanted)?,
            Expect::Recovered(failed, booted) => {
                let mut wrong = self.failed(failed)?;
                let drives = self.scenario.drives.iter().filter(|drive| drive.plugged == Plugged::InRescue);
                for drive in drives {
                    self.guest.plug(drive.name)?;
                }
                self.guest.watch.type_text("exit\r")?;
                wrong.extend(self.booted(booted, figures)?);
                wrong
            }
            Expect::RecoversByItself(failed, booted) => {
                let block = self.block(failed)?;
                let mut wrong = missing("the serial console", &block, failed.says);
                for drive in self.scenario.drives.iter().filter(|drive| drive.plugged == Plugged::InRescue) {
                    self.guest.plug(drive.name)?;
                }
                wrong.extend(self.booted(booted, figures)?);
                wrong
            }
            Expect::Ends(failed, reason) => {
                let block = self.block_until(failed, &["s the machine restarts", "because of sino.on-failure"])?;
                let mut wrong = missing("the serial console", &block, failed.says);
                let ended = self.guest.wait_for_end_reason(self.left())?;
                if ended != reason {
                    wrong.push(format!("the machine ended by {ended:?}, not {reason:?}"));
                }
                return if wrong.is_empty() { Ok(()) } else { bail!("not as expected:\n  - {}", wrong.join("\n  - ")) };
            }
            Expect::Stays(failed, seconds) => {
                let wrong = self.failed(failed)?;
                // What the terminal itself answers in the first seconds is no key.
                std::thread::sleep(Duration::from_secs(3));
                self.guest.watch.type_text("\r")?;
                self.guest.watch.wait_for("a key was pressed", self.left())?;
                // A wait on time: nothing must happen.
                std::thread::sleep(Duration::from_secs(seconds));
                self.guest.watch.type_text("echo still-$((40+2))\r")?;
                self.guest.watch.wait_for("still-42", ANSWER_WITHIN).context("the shell after the countdown's time")?;
                wrong
            }
            Expect::Breaks(steps, booted) => {
                for step in steps {
                    let text = format!("sino.break={step}; exit goes on");
                    self.guest.watch.wait_for(&text, self.left())?;
                    self.guest.watch.wait_for(RESCUE_PROMPT, self.left())?;
                    self.guest.watch.type_text("exit\r")?;
                }
                self.booted(booted, figures)?
            }
            Expect::Multiuser => real_image::check(self, figures)?,
        };
        if let Some(disaster) = self.guest.watch.disaster() {
            bail!("the guest's kernel: {disaster}");
        }
        if wrong.is_empty() { Ok(()) } else { bail!("not as expected:\n  - {}", wrong.join("\n  - ")) }
    }

    /// What is left of the scenario's budget.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn booted(&mut self, wanted: Booted, figures: &mut Figures) -> Result<Vec<String>> {
        let line = self.guest.watch.wait_for_report(self.left()).context("waiting for the payload's report")?;
        let value: serde_json::Value = serde_json::from_str(&line).context("the payload's report is not JSON")?;
        fs::write(self.folder.join("report.json"), serde_json::to_string_pretty(&value)?)?;
        let report: Report = serde_json::from_value(value).context("the payload's report is not as agreed")?;
        fill_in(figures, &report.boot_record);
        let medium_bytes = self
            .scenario
            .drives
            .iter()
            .find(|drive| drive.name == wanted.medium)
            .map(|drive| faults::length(&drive_file(drive.content, drive.name, &self.image, &self.folder)))
            .transpose()?
            .unwrap_or_default();
        let screen = picture_size(&self.guest.screenshot("screen")?)?;
        let facts = ImageFacts {
            build_id: self.image.manifest.build_id.clone(),
            kernel_release: self.image.manifest.kernel_release.clone(),
            marker: self.image.marker.clone(),
            dom0_mib: match self.scenario.begin {
                Begin::Menu(entry) => Some(self.image.dom0_memory(entry.on_ram())),
                Begin::Direct(_) => None,
            },
            medium_bytes,
        };
        let mut wrong = checks::booted(self.scenario, wanted, &facts, &report, screen);
        wrong.extend(self.written()?);
        let pull: &[Afterwards] = match wanted.medium {
            medium if self.scenario.begin.on_ram() && wanted.in_ram != Some(false) && self.has_stick(medium) => {
                &[Afterwards::Pull(medium), Afterwards::ReadAll]
            }
            _ => &[Afterwards::ReadAll],
        };
        let afterwards = if self.scenario.afterwards.is_empty() { pull } else { self.scenario.afterwards };
        for (index, one) in afterwards.iter().enumerate() {
            wrong.extend(
                self.afterwards(*one, figures).with_context(|| format!("afterwards, number {index}, {one:?}"))?,
            );
            if *one == Afterwards::Restart {
                return Ok(wrong);
            }
        }
        wrong.extend(self.written()?);
        Ok(wrong)
    }

    fn afterwards(&mut self, one: Afterwards, figures: &mut Figures) -> Result<Vec<String>> {
        Ok(match one {
            Afterwards::Pull(drive) => {
                self.guest.unplug(drive)?;
                Vec::new()
            }
            Afterwards::Console(text) => {
                self.guest.watch.wait_for(text, self.left())?;
                Vec::new()
            }
            Afterwards::ReadAll => checks::all_read(&self.read_all(figures)?),
            Afterwards::ReadAllBut(files) => checks::all_read_but(&self.read_all(figures)?, files),
            Afterwards::ReadWhatIsLeft => checks::some_unread(&self.read_all(figures)?),
            Afterwards::FillRoot => {
                let filled: Filled = self.ask(FILL)?;
                let full = filled.error.contains("No space left") && filled.bytes > 0;
                if full { Vec::new() } else { vec![format!("the root was not filled: {filled:?}")] }
            }
            Afterwards::MayBeRemoved => {
                let report: Report = self.ask(LOOK)?;
                checks::may_be_removed(&report)
            }
            Afterwards::Trouble(text) => {
                let report: Report = self.ask(LOOK)?;
                checks::trouble(&report, text)
            }
            Afterwards::Configuration => {
                let report: Report = self.ask(LOOK)?;
                let same = report.configuration == faults::CONFIG.trim_end();
                if same { Vec::new() } else { vec![format!("the medium's sino.toml is {:?}", report.configuration)] }
            }
            Afterwards::Warns(text) => {
                let report: Report = self.ask(LOOK)?;
                checks::warns(&report, text)
            }
            Afterwards::Overlay(bytes, files) => {
                let report: Report = self.ask(LOOK)?;
                let found = (report.overlay_bytes, report.overlay_files);
                if found == (bytes, files) { Vec::new() } else { vec![format!("the overlay has {found:?}")] }
            }
            Afterwards::LoopDevices(number) => {
                let report: Report = self.ask(LOOK)?;
                let found: Vec<_> =
                    report.block_devices.iter().map(|(name, _)| name).filter(|name| name.starts_with("loop")).collect();
                if found.len() == number { Vec::new() } else { vec![format!("the loop devices are {found:?}")] }
            }
            Afterwards::Restart => {
                self.guest.watch.tell(RESTART)?;
                let reason = self.guest.wait_for_end_reason(ANSWER_WITHIN)?;
                if reason == EndReason::Reset { Vec::new() } else { vec![format!("the machine ended by {reason:?}")] }
            }
        })
    }

    fn read_all(&mut self, figures: &mut Figures) -> Result<ReadAll> {
        let result: ReadAll = self.ask(READ_ALL).context("reading every file of the root")?;
        figures.free_kib = result.free_kib;
        figures.tmpfs_kib = result.tmpfs_kib;
        figures.read_all_ms = result.spent_ms;
        Ok(result)
    }

    /// Asks the payload.
    fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T> {
        self.guest.watch.tell(command)?;
        let line = self.guest.watch.wait_for_report(ANSWER_WITHIN.max(self.left()))?;
        serde_json::from_str(&line).with_context(|| format!("the payload's answer to {command} is not JSON"))
    }

    fn has_stick(&self, name: &str) -> bool {
        let sticks = [Bus::UsbStick, Bus::UsbStickBehindHub];
        self.scenario.drives.iter().any(|drive| drive.name == name && sticks.contains(&drive.bus))
    }

    /// Drives that the guest wrote to.
    pub(crate) fn written(&mut self) -> Result<Vec<String>> {
        Ok(checks::nothing_written(&self.guest.drive_statistics()?, self.scenario.drives.len()))
    }

    fn failed(&mut self, wanted: Failed) -> Result<Vec<String>> {
        let headline = headline(wanted);
        let block = self.block(wanted)?;
        self.guest.watch.type_text("echo answer-$((6*7))\r")?;
        self.guest.watch.wait_for("answer-42", ANSWER_WITHIN).context("typing into the rescue shell")?;
        self.guest.watch.type_text("report\r")?;
        self.guest.watch.wait_for(&headline, ANSWER_WITHIN).context("asking the rescue shell for the report")?;
        self.guest.watch.wait_for(RESCUE_PROMPT, ANSWER_WITHIN)?;
        let mut wrong = missing("the serial console", &block, wanted.says);
        if self.screen_is_text() {
            let lines = self.guest.text_screen()?;
            let screen = lines.concat();
            fs::write(self.folder.join("screen.txt"), lines.join("\n"))?;
            let headline = [headline.as_str()];
            wrong.extend(missing("the screen", &screen, &headline));
            wrong.extend(missing("the screen", &screen, wanted.says));
            wrong.extend(missing("the screen", &screen, &[RESCUE_PROMPT.trim_end()]));
        }
        wrong.extend(self.written()?);
        Ok(wrong)
    }

    /// Waits for the explanation of a failure and the rescue shell, and returns the explanation.
    fn block(&mut self, wanted: Failed) -> Result<String> {
        self.block_until(wanted, &[RESCUE_PROMPT])
    }

    fn block_until(&mut self, wanted: Failed, ends: &[&str]) -> Result<String> {
        self.guest.watch.wait_for(&headline(wanted), self.left()).context("waiting for the error block")?;
        let (_, block) = self.guest.watch.wait_for_any(ends, self.left()).context("waiting for the rescue shell")?;
        Ok(block)
    }

    /// Whether the kernel's console on the screen is the VGA's text mode.
    fn screen_is_text(&self) -> bool {
        let text = match self.scenario.begin {
            Begin::Menu(entry) => entry.advanced(),
            Begin::Direct(_) => true,
        };
        text && self.scenario.firmware == FirmwareKind::Bios
    }
}

fn headline(wanted: Failed) -> String {
    format!("{} FAILED after", wanted.step)
}

/// Width and height of a PNG picture: two big-endian numbers at the beginning of its first chunk (RFC 2083, 11.2.1).
fn picture_size(file: &Path) -> Result<(u32, u32)> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).with_context(|| format!("{} is not a PNG picture", file.display()))
    };
    Ok((number(16)?, number(20)?))
}

/// What `text` lacks. Lines may be broken anywhere on a screen, so white space does not count.
fn missing(place: &str, text: &str, words: &[&str]) -> Vec<String> {
    let squeeze = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
    let squeezed = squeeze(text);
    let lacks = words.iter().filter(|word| !squeezed.contains(&squeeze(word)));
    lacks.map(|word| format!("{place} does not say {word:?}; it says: {}", text.trim())).collect()
}

/// Reads the times of the steps out of the boot record.
pub(crate) fn fill_in(figures: &mut Figures, record: &serde_json::Value) {
    let Ok(record) = serde_json::from_value::<BootRecord>(record.clone()) else { return };
    let seconds = |us: u64| us as f64 / 1e6;
    let start = |stage: &str| {
        record.steps.iter().find(|step| step.stage == stage).map(|step| seconds(step.start_us)).unwrap_or_default()
    };
    figures.stage_one_at_s = start("stage-one");
    figures.stage_two_at_s = start("stage-two");
    figures.steps = record.steps.iter().map(|step| (step.step.clone(), seconds(step.duration_us))).collect();
}
