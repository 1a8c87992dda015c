//! What `sino disk prepare` will do, as the commands that one would type.

use super::size;
use super::tools::{Call, LONG, SHORT};
use crate::config::schema;
use anyhow::{Result, bail, ensure};
use std::time::Duration;

/// `/srv` of a disk that is large enough.
const SRV: u64 = 20 << 30;
/// Swap of a disk that is large enough. dom0's memory is small and fixed, so it tells nothing of what is needed.
const SWAP: u64 = 6 << 30;
/// What LVM's metadata, the partition table and the alignment take, at most.
const AROUND: u64 = 16 << 20;
/// LVM's extent.
const EXTENT: u64 = 4 << 20;
/// Less is no use: ext4's journal and LVM's extents need it.
const LEAST: u64 = 32 << 20;
/// The type of a partition for LVM in a GPT.
const LVM_PARTITION: &str = "E6D6D379-F507-44C2-A23C-238F2A3DF928";
/// mkfs.ext4 writes all inode tables of a large and slow disk.
const MKFS: Duration = Duration::from_secs(1800);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The disk's kernel name.
    pub disk: String,
    /// Bytes of the disk.
    pub size: u64,
    /// Partitions that the disk has now.
    pub partitions: Vec<String>,
    /// Whether what is on it is wiped.
    pub erase: bool,
    /// Bytes for `/srv`.
    pub srv: Option<u64>,
    /// Bytes for swap; 0: none.
    pub swap: Option<u64>,
    /// The names of the group and the volumes.
    pub names: schema::Storage,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The partition that will be LVM's.
    pub partition: String,
    /// Bytes for `/srv`.
    pub srv: u64,
    /// Bytes for swap.
    pub swap: u64,
    /// Bytes that stay free for guests.
    pub free: u64,
    /// The commands, in order.
    pub calls: Vec<Call>,
}

/// Makes the plan.
///
/// # Errors
/// The disk is too small for what is asked, or a name is none for LVM; with the flag to change.
pub fn make(wish: &Wish) -> Result<Plan> {
    let names = &wish.names;
    for (flag, name) in [("--group", &names.group), ("storage.srv", &names.srv), ("storage.swap", &names.swap)] {
        valid(flag, name)?;
    }
    let room = wish.size.saturating_sub(AROUND) / EXTENT * EXTENT;
    let whole = |bytes: u64| bytes.div_ceil(EXTENT).saturating_mul(EXTENT);
    let share = |most: u64, part: u64| most.min(room / part / EXTENT * EXTENT);
    let srv = wish.srv.map_or_else(|| share(SRV, 4), whole);
    let swap = wish.swap.map_or_else(|| share(SWAP, 10), whole);
    ensure!(srv >= LEAST, "--srv: {} for /srv is too small, {} is the least", size::text(srv), size::text(LEAST));
    let Some(free) = srv.checked_add(swap).and_then(|both| room.checked_sub(both)) else {
        bail!(
            "--srv {} and --swap {} are more than the {} that {} has for them",
            size::text(srv),
            size::text(swap),
            size::text(room),
            wish.disk
        )
    };
    let disk = format!("/dev/{}", wish.disk);
    let partition = first_partition(&disk);
    let mut calls = Vec::new();
    if wish.erase {
        let old: Vec<String> =
            wish.partitions.iter().map(|name| format!("/dev/{name}")).chain([disk.clone()]).collect();
        let mut words = vec!["wipefs", "--all"];
        words.extend(old.iter().map(String::as_str));
        calls.push(Call::new(&words, SHORT));
    }
    let table = format!("start=1MiB, type={LVM_PARTITION}\n");
    let sfdisk =
        ["sfdisk", "--quiet", "--label", "gpt", "--wipe", "always", "--wipe-partitions", "always", disk.as_str()];
    calls.push(Call::new(&sfdisk, SHORT).reading(&table));
    calls.push(settle());
    calls.push(Call::new(&["lvm", "pvcreate", "--yes", &partition], LONG));
    calls.push(Call::new(&["lvm", "vgcreate", &names.group, &partition], LONG));
    let create = |name: &str, bytes: u64| {
        let bytes = format!("{bytes}b");
        Call::new(&["lvm", "lvcreate", "--yes", "--name", name, "--size", &bytes, &names.group], LONG)
    };
    let device = |name: &str| format!("/dev/{}/{name}", names.group);
    if swap > 0 {
        calls.push(create(&names.swap, swap));
    }
    calls.push(create(&names.srv, srv));
    // While udev is at work on a new volume it does not see that it is written to, and would not know the labels.
    calls.push(settle());
    if swap > 0 {
        calls.push(Call::new(&["mkswap", "--label", &names.swap, &device(&names.swap)], SHORT));
    }
    calls.push(Call::new(&["mkfs.ext4", "-q", "-L", "srv", &device(&names.srv)], MKFS));
    Ok(Plan { partition, srv, swap, free, calls })
}

/// Waits until udev knows what was made.
fn settle() -> Call {
    Call::new(&["udevadm", "settle", "--timeout=20"], SHORT)
}

/// The first partition's device: `sda1`, `nvme0n1p1`.
fn first_partition(disk: &str) -> String {
    let digit = disk.chars().last().is_some_and(|last| last.is_ascii_digit());
    format!("{disk}{}1", if digit { "p" } else { "" })
}

/// LVM's rule for names of groups and volumes; see lvm(8), "VALID NAMES". `flag` is where the name comes from.
///
/// # Errors
/// It is none, with the flag.
pub fn valid(flag: &str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    let right = !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('-')
        && name != "."
        && name != ".."
        && name.chars().all(allowed);
    ensure!(right, "{flag}: {name:?} is no name for LVM: letters, digits and + _ . - and no hyphen in front");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(disk: &str, size: u64) -> Wish {
        Wish { disk: disk.into(), size, ..Wish::default() }
    }

    #[test]
    fn an_empty_disk_gets_one_partition_a_group_and_two_volumes() {
        let plan = make(&wish("sdb", 500 << 30)).unwrap();
        let lines: Vec<String> = plan.calls.iter().map(Call::line).collect();
        let expected = [
            "echo 'start=1MiB, type=E6D6D379-F507-44C2-A23C-238F2A3DF928' | sfdisk --quiet --label gpt --wipe always \
             --wipe-partitions always /dev/sdb",
            "udevadm settle --timeout=20",
            "lvm pvcreate --yes /dev/sdb1",
            "lvm vgcreate xvg /dev/sdb1",
            "lvm lvcreate --yes --name swap --size 6442450944b xvg",
            "lvm lvcreate --yes --name xvol --size 21474836480b xvg",
            "udevadm settle --timeout=20",
            "mkswap --label swap /dev/xvg/swap",
            "mkfs.ext4 -q -L srv /dev/xvg/xvol",
        ];
        assert_eq!(lines, expected);
        assert!(plan.free > 470 << 30);
    }

    #[test]
    fn small_disks_keep_most_for_guests_and_wishes_are_checked() {
        let plan = make(&wish("nvme0n1", 16 << 30)).unwrap();
        assert!(plan.srv <= 4 << 30 && plan.srv > 3 << 30 && plan.swap < 2 << 30, "{plan:?}");
        assert_eq!(plan.partition, "/dev/nvme0n1p1");
        let large = Wish { srv: Some(17 << 30), ..wish("sda", 16 << 30) };
        assert!(make(&large).unwrap_err().to_string().contains("--srv 17 GiB"));
        assert!(make(&wish("sda", 64 << 20)).unwrap_err().to_string().starts_with("--srv: "));
        let none = make(&Wish { swap: Some(0), ..wish("sda", 16 << 30) }).unwrap();
        assert!(none.calls.iter().all(|call| !call.line().contains("swap")));
        let names = schema::Storage { group: "-x".into(), ..schema::Storage::default() };
        assert!(make(&Wish { names, ..wish("sda", 16 << 30) }).unwrap_err().to_string().contains("--group"));
    }

    #[test]
    fn what_is_there_is_wiped_only_when_it_is_asked_for() {
        let wish = Wish { erase: true, partitions: vec!["sdb1".into()], ..wish("sdb", 16 << 30) };
        assert_eq!(make(&wish).unwrap().calls[0].line(), "wipefs --all /dev/sdb1 /dev/sdb");
    }
}
