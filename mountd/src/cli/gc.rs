//! `atelier gc`: gives back the room of old versions that need not be kept.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Format, ask, astray, duration, output};
use crate::ipc::{GcReport, PolicyRow, Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// Only tell what would go
    #[arg(long)]
    dry_run: bool,
    /// From now on keep all versions for this long after they were replaced (owners only)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    keep_all: Option<Duration>,
    /// From now on keep the last version of each day for this long (owners only)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    keep_daily: Option<Duration>,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &GcArgs) -> Result<Exit, Failure> {
    let request = Request::Gc {
        dry_run: args.dry_run,
        keep_all_s: args.keep_all.map(|time| time.as_secs()),
        keep_daily_s: args.keep_daily.map(|time| time.as_secs()),
    };
    let Response::Collected(report) = ask(data, &args.path, &request)? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(if report.stopped.is_some() { Exit::Failed } else { Exit::Ok })
}

/// A policy for people.
pub(super) fn policy(policy: &PolicyRow) -> String {
    let days = |seconds: u64| match seconds {
        s if s % 86_400 == 0 => format!("{} days", s / 86_400),
        s if s % 3_600 == 0 => format!("{} hours", s / 3_600),
        s => format!("{s} seconds"),
    };
    let (all, daily) = (policy.keep_all_s, policy.keep_daily_s);
    match all >= daily {
        true => format!("all for {}", days(all)),
        false => format!("all for {}, the last of each day for {}", days(all), days(daily)),
    }
}

fn describe(report: &GcReport) -> String {
    let mut lines = Vec::new();
    let freed = output::size(report.freed_bytes);
    lines.push(match report.dry_run {
        true => format!("{freed} would be given back"),
        false => {
            format!("{freed} given back; the store takes {}", output::size(report.store_bytes))
        }
    });
    lines.push(format!(
        "{} of {} versions need not be kept ({})",
        report.versions_let_go,
        report.versions,
        policy(&report.policy)
    ));
    lines.push(format!("old versions that stay take {}", output::size(report.history_bytes)));
    if report.versions_alone > 0 {
        lines.push(format!(
            "{} more stay because no other device is known to have them",
            report.versions_alone
        ));
    }
    if report.damaged_packs > 0 {
        lines.push(format!(
            "{} packs stay because something needed in them is damaged; run `atelier verify --repair`",
            report.damaged_packs
        ));
    }
    match report.stopped.as_deref() {
        Some("full") => lines.push(
            "stopped: the disk has no room for the copies of what is needed; free some and run it again"
                .to_owned(),
        ),
        Some(_) => lines.push("stopped before it was done; run it again for the rest".to_owned()),
        None => {}
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_in_days_where_it_is_days() {
        let row = |keep_all_s, keep_daily_s| PolicyRow { keep_all_s, keep_daily_s };
        let usual = "all for 30 days, the last of each day for 365 days";
        assert_eq!(policy(&row(30 * 86_400, 365 * 86_400)), usual);
        assert_eq!(policy(&row(7_200, 0)), "all for 2 hours");
        assert_eq!(policy(&row(0, 90)), "all for 0 days, the last of each day for 90 seconds");
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let report = GcReport {
            stopped: Some("full".into()),
            versions_alone: 3,
            history_bytes: 5 << 20,
            damaged_packs: 1,
            ..GcReport::default()
        };
        let text = describe(&report);
        for part in ["no room", "3 more stay", "1 packs", "0 B given back"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(describe(&GcReport { dry_run: true, ..report }).contains("would be"));
    }
}
