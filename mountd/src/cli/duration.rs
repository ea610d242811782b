//! Spans of time as people write them: `60s`, `24h`, `7d`, `1h30m`.
//!
//! Leaves out dates. Invariant: no number overflows; a number without a unit is refused, since nobody
//! can tell what it means.

use std::time::Duration;

/// Parses a span for clap.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let mut total: u64 = 0;
    let mut number = String::new();
    let mut unit = String::new();
    let mut parts: Vec<(String, String)> = Vec::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !unit.is_empty() {
                parts.push((std::mem::take(&mut number), std::mem::take(&mut unit)));
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    parts.push((number, unit));
    for (number, unit) in parts {
        let ms_each = unit_ms(&unit)
            .ok_or_else(|| format!("\"{text}\" is no time; write 90s, 15m, 24h or 7d"))?;
        let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(ms_each));
        total = ms
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(|| format!("\"{text}\" is no time; write 90s, 15m, 24h or 7d"))?;
    }
    Ok(Duration::from_millis(total))
}

fn unit_ms(unit: &str) -> Option<u64> {
    Some(match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_written() {
        for (text, ms) in [
            ("60s", 60_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in
            ["", "60", "h", "-1h", "1.5h", "1y", "99999999999999999999h", "18446744073709551615w"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
