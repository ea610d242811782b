//! Figures of several contenders, printed as a table with ratios.
//!
//! Leaves out: measuring.
//!
//! Invariant: a figure measured several times stands there as its median, and a ratio as the median of the ratios of
//! figures measured in the same turn, because a noisy machine is fast in one minute and slow in the next.

use std::fmt;

/// Whether a larger or a smaller figure is the better one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Better {
    /// Throughput.
    Larger,
    /// Times and amounts.
    Smaller,
}

#[derive(Debug)]
struct Row {
    label: String,
    unit: &'static str,
    better: Better,
    /// Of each contender, in the order they were measured.
    figures: Vec<Vec<f64>>,
}

/// One column a contender, one row a measurement.
#[derive(Debug)]
pub struct Table {
    title: String,
    contenders: Vec<String>,
    rows: Vec<Row>,
}

impl Table {
    /// An empty table; the last contender is the one the ratios are about.
    pub fn new(title: &str, contenders: &[&str]) -> Table {
        let contenders = contenders.iter().map(|name| (*name).to_owned()).collect();
        Table { title: title.to_owned(), contenders, rows: Vec::new() }
    }

    /// Puts one figure in, making the row when it is new; one more turn of it when it is not.
    pub fn put(
        &mut self,
        contender: &str,
        label: &str,
        unit: &'static str,
        better: Better,
        figure: f64,
    ) {
        println!("{contender}: {label}: {} {unit}", shown(figure));
        let Some(column) = self.contenders.iter().position(|name| name == contender) else {
            return;
        };
        let count = self.contenders.len();
        let at = self.rows.iter().position(|row| row.label == label).unwrap_or_else(|| {
            self.rows.push(Row {
                label: label.to_owned(),
                unit,
                better,
                figures: vec![Vec::new(); count],
            });
            self.rows.len() - 1
        });
        if let Some(place) = self.rows.get_mut(at).and_then(|row| row.figures.get_mut(column)) {
            place.push(figure);
        }
    }
}

/// The middle one; of an even number the upper of both.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn shown(figure: f64) -> String {
    if figure.abs() >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, others) = match self.contenders.split_last() {
            Some((own, others)) => (own.as_str(), others),
            None => return Ok(()),
        };
        writeln!(f, "\n{}\n", self.title)?;
        let ratios: Vec<String> = others.iter().map(|name| format!("{own} : {name}")).collect();
        writeln!(f, "| | {} | {} |", self.contenders.join(" | "), ratios.join(" | "))?;
        writeln!(f, "|---{}|", "|---".repeat(self.contenders.len() + others.len()))?;
        for row in &self.rows {
            let arrow =
                if row.better == Better::Larger { "higher is better" } else { "lower is better" };
            write!(f, "| {}, {} ({arrow}) ", row.label, row.unit)?;
            for figure in &row.figures {
                write!(f, "| {} ", median(figure).map_or("-".to_owned(), shown))?;
            }
            let own = row.figures.last().map(Vec::as_slice).unwrap_or_default();
            for other in row.figures.iter().take(others.len()) {
                let pairs = own.iter().zip(other).filter(|(_, other)| **other > 0.0);
                let ratios: Vec<f64> = pairs.map(|(own, other)| own / other).collect();
                match median(&ratios) {
                    Some(ratio) => write!(f, "| {ratio:.2} ")?,
                    None => write!(f, "| - ")?,
                }
            }
            writeln!(f, "|")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_last_contender_to_each_other_one() {
        let mut table = Table::new("title", &["slow", "fast"]);
        table.put("slow", "speed", "MB/s", Better::Larger, 10.0);
        table.put("fast", "speed", "MB/s", Better::Larger, 25.0);
        // A turn in which everything was slow.
        table.put("slow", "speed", "MB/s", Better::Larger, 1.0);
        table.put("fast", "speed", "MB/s", Better::Larger, 2.5);
        table.put("slow", "speed", "MB/s", Better::Larger, 11.0);
        table.put("fast", "speed", "MB/s", Better::Larger, 26.0);
        table.put("fast", "alone", "s", Better::Smaller, 1.0);
        let text = table.to_string();
        assert!(
            text.contains("| speed, MB/s (higher is better) | 10.00 | 25.00 | 2.50 |"),
            "{text}"
        );
        assert!(text.contains("| alone, s (lower is better) | - | 1.00 | - |"), "{text}");
    }
}
