//! How fast stage one's copy to RAM is beside cp(1): `copy-speed FILE [RUNS]`, as root, FILE not on a tmpfs. For the bench in
//! qemu-tests, `copy-speed --values FILE VALUES` writes what the blocks of FILE must be, and `copy-speed --once FILE TARGET VALUES`
//! makes stage one's copy once and prints the seconds: it reads FILE no more often than another program would.
//!
//! In turns, each time with nothing of the file in the page cache: the copy with its hash into a tmpfs, and `cp` into the
//! same tmpfs without any hash. Prints megabytes (10^6) a second of each run and the medians.
#![allow(clippy::unwrap_used)]

use rustix::fd::OwnedFd;
use rustix::fs::{Advice, fadvise, fsync};
use sino_boot::block_hash::{self, BLOCK};
use sino_initramfs::block_copy::{Plan, copy};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [write, file, to] = given.as_slice()
        && write == "--values"
    {
        fs::write(to, values(Path::new(file)).concat()).unwrap();
        return ExitCode::SUCCESS;
    }
    if let [once, file, target, values] = given.as_slice()
        && once == "--once"
    {
        let values = fs::read(values).unwrap();
        let blocks = values.as_chunks().0;
        let began = Instant::now();
        stage_ones(file, target, blocks);
        println!("{}", began.elapsed().as_secs_f64());
        return ExitCode::SUCCESS;
    }
    let mut arguments = given.into_iter();
    let Some(file) = arguments.next() else {
        eprintln!("copy-speed FILE [RUNS]: FILE is copied to /dev/shm by stage one's function and by cp, in turns");
        return ExitCode::from(2);
    };
    let runs: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let size = fs::metadata(&file).unwrap().len();
    let blocks = values(Path::new(&file));
    let target = format!("/dev/shm/sino-copy-speed-{}", std::process::id());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        forget(&file);
        let began = Instant::now();
        stage_ones(&file, &target, &blocks);
        ours.push(rate(size, began));
        fs::remove_file(&target).unwrap();
        forget(&file);
        let began = Instant::now();
        assert!(Command::new("cp").args([&file, &target]).status().unwrap().success());
        theirs.push(rate(size, began));
        fs::remove_file(&target).unwrap();
        println!("run {run}: copy with hash {:.0} MB/s, cp {:.0} MB/s", ours.last().unwrap(), theirs.last().unwrap());
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("median of {runs}: copy with hash {ours:.0} MB/s, cp {theirs:.0} MB/s, ratio {:.2}", ours / theirs);
    ExitCode::SUCCESS
}

/// The copy to be measured.
fn stage_ones(file: &str, target: &str, blocks: &[[u8; 32]]) {
    let size = fs::metadata(file).unwrap().len();
    let from: OwnedFd = File::open(file).unwrap().into();
    let to: OwnedFd = File::create(target).unwrap().into();
    copy(Plan { from: &from, to: Some(&to), size, blocks }, &|_| {}).unwrap();
}

fn values(file: &Path) -> Vec<[u8; 32]> {
    let mut file = File::open(file).unwrap();
    let mut values = Vec::new();
    loop {
        let mut block = Vec::new();
        if file.by_ref().take(BLOCK as u64).read_to_end(&mut block).unwrap() == 0 {
            return values;
        }
        values.push(block_hash::chaining_value(values.len() as u64, &block));
    }
}

/// Takes the file out of the page cache.
fn forget(file: &str) {
    let file = File::open(file).unwrap();
    fsync(&file).unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

fn rate(size: u64, began: Instant) -> f64 {
    size as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
