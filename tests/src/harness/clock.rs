//! A process with a wrong wall clock.
//!
//! Wall time cannot be unshared by a namespace (only boot and monotonic time can), so a few lines of C (`clock.c`) are
//! compiled and preloaded; they answer the C library's `clock_gettime`, which is what Rust's standard library calls.
//! The monotonic clock, sleeps and the times of files stay true: a device with a wrong calendar still has a working
//! stopwatch. (Debian's libfaketime breaks sleeps on the monotonic clock in exactly this setting.)

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::program;

const SOURCE: &str = include_str!("clock.c");
const DAY_SECONDS: i64 = 86_400;

/// An offset of the wall clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offset {
    /// So many days ahead.
    AheadDays(u32),
    /// So many days behind.
    BehindDays(u32),
}

impl Offset {
    fn seconds(self) -> i64 {
        match self {
            Offset::AheadDays(days) => DAY_SECONDS * i64::from(days),
            Offset::BehindDays(days) => -DAY_SECONDS * i64::from(days),
        }
    }
}

/// Lets `command` see a wall clock that is off by `offset`. The library is kept in `dir`.
pub fn shift(command: &mut Command, offset: Offset, dir: &Path) -> Result<()> {
    let library = dir.join("clock.so");
    if !library.exists() {
        let source = dir.join("clock.c");
        std::fs::write(&source, SOURCE).context("write the clock's source")?;
        let mut cc = program::command("cc", ["-O1", "-shared", "-fPIC", "-o"]);
        program::ok(cc.arg(&library).arg(&source))?;
    }
    command.env("LD_PRELOAD", library).env("ATELIER_TEST_CLOCK", offset.seconds().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use anyhow::ensure;

    use super::*;
    use crate::harness::skip::Need;

    #[test]
    fn only_the_wall_clock_is_wrong() -> Result<()> {
        crate::needs!(Need::Program("cc"), Need::Program("python3"));
        let dir = tempfile::tempdir()?;
        let script = "import time; print(time.time(), time.monotonic(), time.sleep(0.05) or time.monotonic())";
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let up: f64 = std::fs::read_to_string("/proc/uptime")?
            .split(' ')
            .next()
            .context("no uptime")?
            .parse()?;
        for (offset, seconds) in [
            (Offset::AheadDays(3650), 3650.0 * 86400.0),
            (Offset::BehindDays(3650), -3650.0 * 86400.0),
        ] {
            let mut python = program::command("python3", ["-c", script]);
            shift(&mut python, offset, dir.path())?;
            let out = program::ok(&mut python)?;
            let times: Vec<f64> =
                out.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            let [wall, before, after] = times.as_slice() else { anyhow::bail!("{out}") };
            ensure!((wall - now - seconds).abs() < 60.0, "{offset:?} gives {wall}");
            ensure!((before - up).abs() < 3600.0, "the monotonic clock is shifted too: {before}");
            ensure!((0.04..5.0).contains(&(after - before)), "the monotonic clock does not run");
        }
        Ok(())
    }
}
