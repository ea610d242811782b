//! Times as names: `2026-11-23T16:04:05Z`, and shorter.
//!
//! Leaves out: whether there was a drive then.
//!
//! Invariants:
//! - a name means one second in UTC, whatever parts of it are left out; the tree of that name is the
//!   one at the second's end, so that it holds a version whose time is written the same way;
//! - `.` may stand for `:`, which file dialogs and other systems refuse.

use journal::op::Timestamp;

/// Milliseconds in a second.
const MS: i64 = 1_000;

/// The last millisecond of the second that `text` names: `YYYY-MM-DD`, then perhaps `THH`, `THH:MM` or
/// `THH:MM:SS`, then perhaps `Z`.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, clock) = text.split_at_checked(10)?;
    let is_date = date.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let mut parts = ["00"; 3];
    if !clock.is_empty() {
        let mut given = clock.strip_prefix(['T', 't'])?.split([':', '.']);
        for part in &mut parts {
            *part = given.next().unwrap_or("00");
        }
        if given.next().is_some() {
            return None;
        }
    }
    let is_clock =
        parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()));
    if !is_date || !is_clock {
        return None;
    }
    let [hours, minutes, seconds] = parts;
    let text = format!("{date}T{hours}:{minutes}:{seconds}Z");
    let secs = text.parse::<jiff::Timestamp>().ok()?.as_second();
    u64::try_from(secs.checked_mul(MS)?.checked_add(MS - 1)?).ok()
}

/// The second of a moment, as the name of a version: `2026-11-23T16.04.05Z`.
pub(crate) fn second(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(ms.div_euclid(MS)).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H.%M.%SZ").to_string()
}

/// The minute of a moment, as the name of a point in time: `2026-11-23T16.00Z`.
pub(crate) fn minute(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(ms.div_euclid(MS)).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H.%MZ").to_string()
}

/// The second of a moment as people and programs write it: `2026-11-23T16:04:05Z`.
pub(crate) fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(ms.div_euclid(MS)).unwrap_or(jiff::Timestamp::MAX);
    time.to_string()
}

/// A moment as file systems keep it.
pub(crate) fn stamp(ms: u64) -> Timestamp {
    let secs = i64::try_from(ms / MS.unsigned_abs()).unwrap_or(i64::MAX);
    Timestamp { secs, nanos: (ms % MS.unsigned_abs()) as u32 * 1_000_000 }
}

/// Milliseconds since 1970.
pub(crate) fn ms(time: Timestamp) -> u64 {
    let ms = time.secs.saturating_mul(MS).saturating_add(i64::from(time.nanos / 1_000_000));
    u64::try_from(ms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_second_means_it() {
        let second = 1_795_449_845_999;
        for text in [
            "2026-11-23T16:04:05Z",
            "2026-11-23T16.04.05Z",
            "2026-11-23T16:04:05",
            "2026-11-23t16.04:05",
        ] {
            assert_eq!(parse(text), Some(second), "{text}");
        }
        assert_eq!(parse("2026-11-23T16:04Z"), Some(1_795_449_840_999));
        assert_eq!(parse("2026-11-23T16Z"), Some(1_795_449_600_999));
        assert_eq!(parse("2026-11-23"), parse("2026-11-23T00:00:00Z"));
        assert_eq!(parse("2024-02-29"), Some(1_709_164_800_999));
        assert_eq!(super::second(second), "2026-11-23T16.04.05Z");
        assert_eq!(minute(second), "2026-11-23T16.04Z");
        assert_eq!(parse(&super::second(second)), Some(second));
        assert_eq!(ms(stamp(second)), second);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "Z",
            "now",
            "2026",
            "2026-11",
            "2026-13-01",
            "2026-02-30",
            "2026-11-23T",
            "2026-11-23T24:00:00Z",
            "2026-11-23T16:60Z",
            "2026-11-23T16:04:05.123Z",
            "2026-11-23T1:04Z",
            "2026-11-23T16:04:05+01:00",
            "2026-11-23 16:04:05",
            "20261123T160405Z",
            "1960-01-01",
            "２０２６-11-23",
            "2026-11-2é",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
