//! Random operations on the mount and on a plain directory beside it: both must answer the same and hold the same,
//! at every moment, whatever is published in between.
//!
//! One device; few names, so that names are taken, left and taken again. A failure names its seed and the last
//! operations. `ATELIER_SEED` and `ATELIER_ROUNDS` run another or a longer one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use tests::harness::device::Device;
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::needs;

const ROUNDS: u64 = 3_000;
const SEEDS: [u64; 2] = [15, 101];
/// Operations shown when something differs.
const SHOWN: usize = 60;

/// A small generator: a hash of seed and counter.
struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.thrown += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&self.thrown.to_le_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        (u64::from_le_bytes(bytes) % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn path(&mut self) -> String {
        let depth = self.pick(&[1, 1, 2, 2, 3]);
        (0..depth).map(|_| self.pick(&["a", "b", "c"])).collect::<Vec<_>>().join("/")
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        tree::random_bytes(len, self.below(1 << 20) as u64)
    }
}

#[derive(Debug)]
enum Step {
    MakeDir(String),
    RemoveDir(String),
    RemoveTree(String),
    Write(String, Vec<u8>),
    Patch(String, Vec<u8>, u64),
    Cut(String, u64),
    Unlink(String),
    Rename(String, String),
}

impl Step {
    fn any(dice: &mut Dice) -> Step {
        let path = dice.path();
        match dice.below(13) {
            0 | 1 => Step::MakeDir(path),
            2 | 3 => {
                let len = dice.pick(&[0, 10, 50_000]);
                Step::Write(path, dice.bytes(len))
            }
            4 => {
                let len = dice.pick(&[1, 3_000]);
                Step::Patch(path, dice.bytes(len), dice.pick(&[0, 5, 40_000, 90_000]))
            }
            5 => Step::Cut(path, dice.pick(&[0, 3, 20_000, 70_000])),
            6 => Step::Unlink(path),
            7..=9 => Step::Rename(path, dice.path()),
            10 => Step::RemoveDir(path),
            _ => Step::RemoveTree(path),
        }
    }

    fn run(&self, root: &Path) -> io::Result<()> {
        match self {
            Step::MakeDir(path) => fs::create_dir(root.join(path)),
            Step::RemoveDir(path) => fs::remove_dir(root.join(path)),
            Step::RemoveTree(path) => fs::remove_dir_all(root.join(path)),
            Step::Write(path, bytes) => fs::write(root.join(path), bytes),
            Step::Patch(path, bytes, at) => {
                OpenOptions::new().write(true).open(root.join(path))?.write_all_at(bytes, *at)
            }
            Step::Cut(path, len) => {
                OpenOptions::new().write(true).open(root.join(path))?.set_len(*len)
            }
            Step::Unlink(path) => fs::remove_file(root.join(path)),
            Step::Rename(from, to) => fs::rename(root.join(from), root.join(to)),
        }
    }

    /// For a report: what it was, without its bytes.
    fn told(&self) -> String {
        match self {
            Step::Write(path, bytes) => format!("write {path}, {} bytes", bytes.len()),
            Step::Patch(path, bytes, at) => format!("patch {path}, {} bytes at {at}", bytes.len()),
            other => format!("{other:?}"),
        }
    }
}

/// The error as far as two file systems may be compared: which of two reasons is named first is theirs to choose.
fn outcome(result: &io::Result<()>) -> Option<Errno> {
    let errno = Errno::from_io_error(result.as_ref().err()?).unwrap_or(Errno::IO);
    Some(if errno == Errno::EXIST { Errno::NOTEMPTY } else { errno })
}

fn shape(root: &Path) -> Result<Tree> {
    Ok(Tree::read(root)?.without_times())
}

fn number(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().context("a number")).transpose()
}

fn twins(seed: u64, rounds: u64) -> Result<()> {
    let site = Site::new()?;
    let mut device = Device::local(&site, "Ann")?;
    device.mount()?;
    let (mount, plain) = (device.mount_dir(), site.dir("plain")?);
    let mut dice = Dice { seed, thrown: 0 };
    let mut told: Vec<String> = Vec::new();
    for round in 0..rounds {
        if dice.below(8) == 0 {
            device.cli(&["sync"])?;
            told.push("sync".into());
            continue;
        }
        let step = Step::any(&mut dice);
        let (here, there) = (step.run(&mount), step.run(&plain));
        told.push(format!("{}: {:?}", step.told(), outcome(&there)));
        let last = told.get(told.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n  ");
        let head = format!("seed {seed}, round {round}");
        if outcome(&here) != outcome(&there) {
            bail!("{head}: {here:?} in the mount, {there:?} beside it, after\n  {last}");
        }
        let differences = shape(&plain)?.differences(&shape(&mount)?);
        ensure!(differences.is_empty(), "{head}: {differences}, after\n  {last}");
    }
    device.cli(&["sync"])?;
    device.unmount()?;
    device.mount()?;
    let differences = shape(&plain)?.differences(&shape(&mount)?);
    ensure!(differences.is_empty(), "seed {seed}: after a new mount {differences}");
    Ok(())
}

#[test]
fn random_operations_leave_what_they_leave_in_a_plain_directory() -> Result<()> {
    needs!(Need::Fuse);
    let rounds = number("ATELIER_ROUNDS")?.unwrap_or(ROUNDS);
    match number("ATELIER_SEED")? {
        Some(seed) => twins(seed, rounds),
        None => SEEDS.into_iter().try_for_each(|seed| twins(seed, rounds)),
    }
}
