//! How full the overlay is, and when that is worth a warning.

use rustix::fs::{StatVfs, statvfs};
use sino_boot::layout;

/// Percent at which a warning is due.
const THRESHOLDS: [u64; 2] = [80, 95];
/// A warning comes again only after the overlay was emptier than its threshold by so many percent.
const SLACK: u64 = 5;

/// Remembers which warnings were given.
#[derive(Debug, Default)]
pub struct OverlayWatch {
    space: usize,
    files: usize,
}

impl OverlayWatch {
    /// Looks, and returns what there is to say now.
    pub fn look(&mut self) -> Vec<String> {
        // Without an overlay there is nothing to watch.
        statvfs(layout::OVERLAY).map(|facts| self.judge(&facts)).unwrap_or_default()
    }

    fn judge(&mut self, facts: &StatVfs) -> Vec<String> {
        let used = |total: u64, free: u64| total.saturating_sub(free).saturating_mul(100) / total.max(1);
        let space = used(facts.f_blocks, facts.f_bfree);
        let files = used(facts.f_files, facts.f_ffree);
        let mib = facts.f_blocks.saturating_mul(facts.f_frsize) >> 20;
        let mut said = Vec::new();
        if crossed(space, &mut self.space) {
            said.push(format!(
                "{space} % of the {mib} MiB for changes to the root are used; \"sino status\" shows by what"
            ));
        }
        if crossed(files, &mut self.files) {
            let most = facts.f_files;
            said.push(format!(
                "{files} % of the {most} files for changes to the root are used; \"sino status\" shows by what"
            ));
        }
        said
    }
}

/// Whether a threshold was crossed upwards; `level` counts those that are crossed.
fn crossed(percent: u64, level: &mut usize) -> bool {
    let reached = THRESHOLDS.iter().filter(|threshold| percent >= **threshold).count();
    let left = THRESHOLDS.iter().filter(|threshold| percent + SLACK >= **threshold).count();
    let news = reached > *level;
    *level = if news { reached } else { (*level).min(left) };
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_warns_once_until_there_is_room_again() {
        let mut level = 0;
        let news: Vec<bool> = [10, 79, 80, 85, 96, 99, 94, 96, 70, 81, 100]
            .into_iter()
            .map(|percent| crossed(percent, &mut level))
            .collect();
        assert_eq!(news, [false, false, true, false, true, false, false, false, false, true, true]);
    }
}
