//! Waiting for conditions, always with a bound and a message. The only place in the tests that sleeps.
//!
//! Leaves out waiting for a fixed time: a test that needs one hopes, and hoping fails on a busy machine.

use std::fmt::Display;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` gives a value, `bound` at most. An error of the condition ends the wait at once.
pub fn until<T>(
    what: impl Display,
    bound: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().with_context(|| format!("while waiting until {what}"))? {
            return Ok(value);
        }
        if started.elapsed() >= bound {
            bail!("waited {:.1} s in vain until {what}", started.elapsed().as_secs_f64());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Like [`until`] for conditions that may fail for a while: the last failure is told when the time is over.
pub fn until_ok<T>(
    what: impl Display,
    bound: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() >= bound => {
                return Err(error.context(format!(
                    "waited {:.1} s in vain until {what}",
                    started.elapsed().as_secs_f64()
                )));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// A breath between two rounds of a loop that watches something for as long as something else goes on.
pub fn breathe(pause: Duration) {
    std::thread::sleep(pause);
}

/// Waits for the end of a process without spinning; `None` when it still runs after `bound`.
pub fn exit_of(child: &mut Child, bound: Duration) -> Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty()).context("open a pidfd")?;
    let deadline = Instant::now() + bound;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs())?,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(child.try_wait()?),
            Ok(_) => return Ok(Some(child.wait()?)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll a pidfd"),
        }
    }
}
