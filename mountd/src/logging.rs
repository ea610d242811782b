//! Where the daemon writes what it does.
//!
//! Everything goes to standard error: in the foreground that is the terminal, in the background it is
//! the drive's `daemon.log`, so that a panic's last words are in it too. Leaves out what is logged.
//!
//! Invariant: the log of a start is at most [`LOG_LEN_MAX`] behind the start before last.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, as `info` or `net=debug`.
pub const VARIABLE: &str = "ATELIER_LOG";
/// What is logged without it.
const USUAL: &str = "info,libp2p=warn,libp2p_mdns=error,netlink_proto=warn,hickory_net=error";
/// A log larger than this is put aside at the next start, bytes.
const LOG_LEN_MAX: u64 = 8 << 20;
/// How much of a log's end is shown after a failed start, bytes.
const TAIL_LEN: u64 = 8_192;
/// And how many lines of it.
const TAIL_LINES: usize = 8;

/// Begins to log. Once a process; later calls do nothing.
pub fn init() {
    let filter = std::env::var(VARIABLE)
        .ok()
        .and_then(|text| text.parse::<EnvFilter>().ok())
        .unwrap_or_else(|| EnvFilter::new(USUAL));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

/// Sends standard output and standard error to the log at `path`.
pub fn redirect_to(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_LEN_MAX) {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        fs::rename(path, aside)?;
    }
    let log = File::options().create(true).append(true).mode(0o600).open(path)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

/// The last lines of a log, on one line.
pub fn tail(log: &mut File) -> String {
    let len = log.metadata().map_or(0, |m| m.len());
    let mut bytes = Vec::new();
    let read = log
        .seek(SeekFrom::Start(len.saturating_sub(TAIL_LEN)))
        .and_then(|_| log.take(TAIL_LEN).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    // A panic's words stand before its backtrace, which says nothing to a user.
    let text = text.split("stack backtrace:").next().unwrap_or_default();
    let mut lines: Vec<&str> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).rev().take(TAIL_LINES).collect();
    lines.reverse();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_tail_is_the_end_of_the_log_and_bounded() {
        let mut log = tempfile::tempfile().unwrap();
        assert_eq!(tail(&mut log), "");
        for line in 0..10_000 {
            writeln!(log, "line {line}").unwrap();
        }
        let tail = tail(&mut log);
        assert!(tail.ends_with("| line 9998 | line 9999"), "{tail}");
        assert_eq!(tail.split(" | ").count(), TAIL_LINES);
    }
}
