//! What size costs: a small edit of a large file, a sparse file of 100 GB, a directory of 100,000 entries, a drive of
//! 1,000,000 files. Each figure stands beside the native file system's, so that a cost that grows with the whole
//! instead of with the work shows.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Size;
use super::table::{Better, Table, median};
use super::under::{Atelier, Native, Under};
use crate::harness::device::Device;
use crate::harness::program::{self, command};
use crate::harness::site::Site;
use crate::harness::{process, tree};

const LARGE_LEN: u64 = 10 << 30;
const SPARSE_LEN: u64 = 100_000_000_000;
const EDITS: u64 = 20;
const EDIT_LEN: usize = 4 << 10;
const DIR_ENTRIES: u64 = 100_000;
const FILES: u64 = 1_000_000;
const FILES_A_DIR: u64 = 1_000;
/// Seconds and more: a million files take their time.
const LONG_BOUND: Duration = Duration::from_secs(3_600);

/// Runs everything and prints the table. `only` names the contenders to run; empty means all.
pub fn run(size: Size, only: &[String]) -> Result<()> {
    let site = Site::new()?;
    let mut table = Table::new("Large files, directories and drives.", &["native", "Atelier"]);
    let mut contenders: Vec<Box<dyn Under>> = vec![Box::new(Native(site.dir("native")?))];
    let mut device = Device::local(&site, "a")?;
    device.mount()?;
    contenders.push(Box::new(Atelier(device)));
    contenders.retain(|under| {
        only.is_empty() || only.iter().any(|one| one.eq_ignore_ascii_case(under.name()))
    });
    for under in &mut contenders {
        let name = under.name();
        large(under.as_mut(), size, &mut table).with_context(|| format!("{name}: large file"))?;
        sparse(under.as_mut(), &mut table).with_context(|| format!("{name}: sparse file"))?;
        wide(under.as_mut(), size, &mut table).with_context(|| format!("{name}: directory"))?;
        many(under.as_mut(), size, &mut table).with_context(|| format!("{name}: many files"))?;
    }
    println!("{table}");
    Ok(())
}

/// Milliseconds that `work` took.
fn took_ms<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed().as_secs_f64() * 1e3))
}

fn middle(figures: &[f64]) -> f64 {
    median(figures).unwrap_or(f64::NAN)
}

/// Small edits, each with its own open and close.
fn edits(under: &dyn Under, path: &Path, len: u64, label: &str, table: &mut Table) -> Result<()> {
    let before = under.moved_bytes()?;
    let mut closes = Vec::new();
    for edit in 0..EDITS {
        let file = File::options().write(true).open(path)?;
        let at = (edit * 2 + 1) * (len / (2 * EDITS + 1));
        file.write_all_at(&tree::random_bytes(EDIT_LEN, edit), at)?;
        let close = || {
            drop(file);
            Ok(())
        };
        closes.push(took_ms(close)?.1);
    }
    let name = under.name();
    let close = format!("{label}: close after an edit of 4 KiB, median of {EDITS}");
    table.put(name, &close, "ms", Better::Smaller, middle(&closes));
    if let (Some(before), Some(after)) = (before, under.moved_bytes()?) {
        let each = (after - before) as f64 / EDITS as f64 / 1e6;
        let moved = format!("{label}: read and written for one edit");
        table.put(name, &moved, "MB", Better::Smaller, each);
    }
    Ok(())
}

fn large(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    let (len, path) = (size.of(LARGE_LEN), under.dir().join("large.dat"));
    let label = format!("{} GiB file", len as f64 / f64::from(1 << 30));
    let ((), wrote_ms) = took_ms(|| {
        let mut file = File::create(&path)?;
        let block = tree::random_bytes(64 << 20, 1);
        let mut left = len;
        let mut turn = 0u64;
        while left > 0 {
            // A different beginning each time, or all blocks would be one.
            let head = turn.to_le_bytes();
            file.write_all(&head)?;
            let rest = (block.len() as u64).min(left).saturating_sub(head.len() as u64);
            file.write_all(block.get(..usize::try_from(rest)?).context("a block")?)?;
            left = left.saturating_sub(rest + head.len() as u64);
            turn += 1;
        }
        file.sync_all()?;
        Ok(())
    })?;
    let speed = len as f64 / 1e3 / wrote_ms;
    table.put(
        under.name(),
        &format!("{label}: repetitive, written"),
        "MB/s",
        Better::Larger,
        speed,
    );
    under.cool()?;
    edits(under, &path, len, &label, table)?;
    fs::remove_file(&path)?;
    Ok(())
}

fn sparse(under: &mut dyn Under, table: &mut Table) -> Result<()> {
    let path = under.dir().join("sparse.dat");
    let label = "100 GB sparse file";
    let ((), made_ms) = took_ms(|| {
        let mut file = File::create(&path)?;
        file.set_len(SPARSE_LEN)?;
        for part in 0..10 {
            file.seek(SeekFrom::Start(part * (SPARSE_LEN / 10)))?;
            file.write_all(&tree::random_bytes(1 << 20, part))?;
        }
        file.sync_all()?;
        Ok(())
    })?;
    table.put(under.name(), &format!("{label}: made"), "ms", Better::Smaller, made_ms);
    under.cool()?;
    edits(under, &path, SPARSE_LEN, label, table)?;
    let (read, ms) = took_ms(|| {
        let mut end = [1; 4096];
        File::open(&path)?.read_exact_at(&mut end, SPARSE_LEN - 4096)?;
        Ok(end)
    })?;
    ensure!(read.iter().all(|byte| *byte == 0), "a hole reads as zeros");
    table.put(under.name(), &format!("{label}: read 4 KiB at the end"), "ms", Better::Smaller, ms);
    let ((), ms) = took_ms(|| Ok(File::options().write(true).open(&path)?.set_len(5)?))?;
    table.put(under.name(), &format!("{label}: cut to 5 bytes"), "ms", Better::Smaller, ms);
    fs::remove_file(&path)?;
    Ok(())
}

/// A save as programs do it: a new file beside, then renamed over.
fn save(dir: &Path, name: &str, turn: u64) -> Result<()> {
    let beside = dir.join(format!("{name}@"));
    fs::write(&beside, tree::random_bytes(4096, turn))?;
    fs::rename(beside, dir.join(name))?;
    Ok(())
}

fn wide(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    let count = size.of(DIR_ENTRIES);
    let dir = under.dir().join("wide");
    fs::create_dir(&dir)?;
    let label = format!("directory of {count}");
    let name = under.name();
    let ((), ms) = took_ms(|| {
        (0..count).try_for_each(|n| Ok(fs::write(dir.join(format!("file-{n:06}")), b"some bytes")?))
    })?;
    let rate = count as f64 / ms * 1e3;
    table.put(name, &format!("{label}: create"), "per second", Better::Larger, rate);
    under.cool()?;
    let name = under.name();
    let list = || {
        took_ms(|| {
            let found = fs::read_dir(&dir)?.count() as u64;
            ensure!(found == count, "listed {found} of {count}");
            Ok(())
        })
    };
    table.put(name, &format!("{label}: list, cold"), "ms", Better::Smaller, list()?.1);
    table.put(name, &format!("{label}: list, again"), "ms", Better::Smaller, list()?.1);
    let turns: Vec<f64> = (0..9)
        .map(|turn| Ok(took_ms(|| save(&dir, "file-000777", turn))?.1))
        .collect::<Result<_>>()?;
    table.put(name, &format!("{label}: one save"), "ms", Better::Smaller, middle(&turns));
    let ((), ms) = took_ms(|| Ok(fs::remove_dir_all(&dir)?))?;
    let rate = count as f64 / ms * 1e3;
    table.put(name, &format!("{label}: remove"), "per second", Better::Larger, rate);
    Ok(())
}

fn find(dir: &Path) -> Result<u64> {
    let out = program::ok_within(
        command("find", []).arg(dir).args(["-type", "f", "-printf", "."]),
        LONG_BOUND,
    )?;
    Ok(out.len() as u64)
}

fn many(under: &mut dyn Under, size: Size, table: &mut Table) -> Result<()> {
    let count = size.of(FILES);
    let top = under.dir().join("top");
    fs::create_dir(&top)?;
    let label = format!("drive of {count} files");
    let name = under.name();
    let ((), ms) = took_ms(|| {
        for dir in 0..count.div_ceil(FILES_A_DIR) {
            let sub = top.join(format!("dir-{dir:05}"));
            fs::create_dir(&sub)?;
            for file in 0..FILES_A_DIR.min(count - dir * FILES_A_DIR) {
                fs::write(sub.join(format!("file-{file:04}")), format!("{dir} {file}"))?;
            }
        }
        Ok(())
    })?;
    let rate = count as f64 / ms * 1e3;
    table.put(name, &format!("{label}: create"), "per second", Better::Larger, rate);
    memory(under, &format!("{label}: memory after creating"), table)?;
    let (stop_ms, start_ms) = under.restart()?;
    if let (Some(stop_ms), Some(start_ms)) = (stop_ms, start_ms) {
        table.put(name, &format!("{label}: unmount"), "ms", Better::Smaller, stop_ms);
        table.put(name, &format!("{label}: mount"), "ms", Better::Smaller, start_ms);
    }
    memory(under, &format!("{label}: memory after mounting"), table)?;
    for how in ["cold", "again"] {
        let (found, ms) = took_ms(|| find(&top))?;
        ensure!(found == count, "found {found} of {count}");
        table.put(name, &format!("{label}: find, {how}"), "ms", Better::Smaller, ms);
    }
    memory(under, &format!("{label}: memory after find"), table)?;
    let sub = top.join("dir-00003");
    let turns: Vec<f64> = (0..9)
        .map(|turn| Ok(took_ms(|| save(&sub, "file-0007", turn))?.1))
        .collect::<Result<_>>()?;
    table.put(name, &format!("{label}: one save"), "ms", Better::Smaller, middle(&turns));
    let renamed = under.dir().join("renamed");
    let ((), ms) = took_ms(|| Ok(fs::rename(&top, &renamed)?))?;
    table.put(name, &format!("{label}: rename the top directory"), "ms", Better::Smaller, ms);
    let (found, ms) = took_ms(|| find(&renamed))?;
    ensure!(found == count, "found {found} of {count} after the rename");
    table.put(name, &format!("{label}: find after it"), "ms", Better::Smaller, ms);
    let (stop_ms, start_ms) = under.restart()?;
    if let (Some(stop_ms), Some(start_ms)) = (stop_ms, start_ms) {
        table.put(name, &format!("{label}: unmount after it"), "ms", Better::Smaller, stop_ms);
        table.put(name, &format!("{label}: mount after it"), "ms", Better::Smaller, start_ms);
    }
    let (found, _) = took_ms(|| find(&renamed))?;
    ensure!(found == count, "found {found} of {count} after a new mount");
    Ok(())
}

fn memory(under: &dyn Under, label: &str, table: &mut Table) -> Result<()> {
    if let Some(pid) = under.pid()? {
        let mib = process::resident_kib(pid)? as f64 / 1024.0;
        table.put(under.name(), label, "MiB", Better::Smaller, mib);
    }
    Ok(())
}
