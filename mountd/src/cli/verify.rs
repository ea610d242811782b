//! `atelier verify`: every chunk, every link of the journal.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ask, astray, output};
use crate::ipc::{Request, Response, VerifyReport};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// Fetch again from other members what is damaged
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &VerifyArgs) -> Result<Exit, Failure> {
    let answer = ask(data, &args.path, &Request::Verify { repair: args.repair })?;
    let Response::Verified(report) = answer else { return Err(astray()) };
    if args.format.json {
        output::json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(if report.is_sound() { Exit::Ok } else { Exit::Failed })
}

fn describe(report: &VerifyReport) -> String {
    let chunks = match (report.bad, report.repaired) {
        (0, _) => format!("{} chunks, all good", report.chunks),
        (bad, repaired) => {
            format!("{} chunks, {bad} damaged, {repaired} of them repaired", report.chunks)
        }
    };
    let journal = match report.journal_bad {
        0 => format!("{} journal entries, all good", report.journal_entries),
        bad => format!("{} journal entries, {bad} damaged", report.journal_entries),
    };
    format!("{chunks}\n{journal}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_repaired_is_sound_and_what_was_not_is_not() {
        let report = VerifyReport { chunks: 9, bad: 2, repaired: 2, ..VerifyReport::default() };
        assert!(report.is_sound());
        assert!(!VerifyReport { repaired: 1, ..report.clone() }.is_sound());
        assert!(!VerifyReport { journal_bad: 1, ..report.clone() }.is_sound());
        assert!(describe(&report).contains("2 damaged, 2 of them repaired"));
    }
}
