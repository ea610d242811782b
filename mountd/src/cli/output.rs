//! Writing for people and for programs.
//!
//! Leaves out what is written. A reader that stops reading (`| head`) is no error.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::report::Failure;

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::internal(format!("cannot write the answer: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes a value as JSON to standard output.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value).map_err(Failure::internal)?)
}

/// Writes a line that is not the answer.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a failure's two lines.
pub(crate) fn error(failure: &Failure) {
    let _ = io::stderr().lock().write_all(failure.lines().as_bytes());
}

/// Rows of text under each other; every column but the last as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = console_width(cell);
            match widths.get_mut(at) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut out = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width.saturating_sub(console_width(cell)).saturating_add(2);
            let _ = write!(out, "{}{:pad$}", printable(cell), "");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

fn console_width(text: &str) -> usize {
    text.chars().count()
}

/// Names come from other people: no control characters reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A report's time for people: to the second.
pub(crate) fn time(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => printable(rfc3339),
    }
}

/// The beginning of an id, enough to tell a few apart.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = [["a", "long one", ""], ["äöü", "b", "c"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|r| r.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(table(&rows), "a    long one\näöü  b         c\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(52 << 20), "52.0 MiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn names_from_elsewhere_do_not_command_the_terminal() {
        assert!(!table(&[vec!["\x1b[2Jevil\n".into()]]).trim_end().contains(['\x1b', '\n']));
    }

    #[test]
    fn times_are_shown_to_the_second() {
        assert_eq!(time("2026-11-23T16:04:05.25Z"), "2026-11-23 16:04:05 UTC");
        assert_eq!(time("whenever"), "whenever");
    }
}
