//! A bar for long work, when somebody looks.
//!
//! Leaves out what the work is. Invariant: nothing is drawn unless standard error is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::ipc::{Progress, Unit};

/// Shows the steps of one piece of work; gone when dropped.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    visible: bool,
    shape: Option<(String, Unit, bool)>,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self { bar: None, visible: std::io::stderr().is_terminal(), shape: None }
    }

    /// Shows one more step.
    pub(crate) fn show(&mut self, step: Progress) {
        if !self.visible {
            return;
        }
        let bar = self.bar.get_or_insert_with(ProgressBar::no_length);
        let shape = (step.stage.clone(), step.unit, step.total.is_some());
        if self.shape.as_ref() != Some(&shape) {
            bar.set_style(style(step.unit, step.total.is_some()));
            bar.set_message(super::output::printable(&step.stage));
            bar.reset();
            self.shape = Some(shape);
        }
        match step.total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_position(step.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(unit: Unit, has_total: bool) -> ProgressStyle {
    let template = match (unit, has_total) {
        (Unit::Bytes, true) => {
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        }
        (Unit::Items, true) => "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
        (Unit::Bytes, false) => "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}",
        (Unit::Items, false) => "{spinner} {msg} {human_pos}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        for unit in [Unit::Bytes, Unit::Items] {
            for has_total in [true, false] {
                let bar = ProgressBar::hidden();
                bar.set_style(style(unit, has_total));
                bar.set_position(1);
            }
        }
    }
}
