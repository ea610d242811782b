//! Looking at and ending processes, always by their id.
//!
//! Leaves out matching by a program's name: a test may only end what it started, and it knows that by the unique
//! directory in the process's arguments.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The ids of all processes that have `dir` in one of their arguments.
pub fn of_dir(dir: &Path) -> Vec<i32> {
    let Some(wanted) = dir.to_str() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id().to_string();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| *name != own && name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| {
            let arguments = std::fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(wanted)
        })
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// Sends SIGKILL to one process.
pub fn kill_9(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, Signal::KILL).ok();
    }
}

/// Sends SIGTERM to one process.
pub fn terminate(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("not a process id")?;
    kill_process(pid, Signal::TERM).context("send SIGTERM")
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS line")?;
    let number = line.split_whitespace().nth(1).context("no number in the VmRSS line")?;
    Ok(number.parse()?)
}

/// Bytes a process has read and written by system calls since it began.
pub fn moved_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let figure = |key: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(line.with_context(|| format!("no {key} line"))?.trim().parse()?)
    };
    Ok(figure("rchar:")? + figure("wchar:")?)
}

/// How many descriptors a process has open.
pub fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Whether something is mounted exactly at `path`. Reads the kernel's table and never touches the mount itself,
/// which may be dead.
pub fn is_mounted(path: &Path) -> bool {
    let Some(wanted) = path.to_str() else { return false };
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(wanted))
}

/// Whether a mount at `path` is alive: neither one whose daemon died, nor the bare directory below.
pub fn answers(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|own| Some(own) != parent)
}

/// All mount points at or below `dir`, the innermost first.
pub fn mounts_below(dir: &Path) -> Vec<String> {
    let Some(wanted) = dir.to_str() else { return Vec::new() };
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| *at == wanted || at.starts_with(&format!("{wanted}/")))
        .map(str::to_owned)
        .collect();
    found.reverse();
    found
}
