//! `atelier sync`: seal, and wait until all connected members have everything.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Format, ask, astray, duration, output};
use crate::ipc::{Request, Response, SyncReport};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = duration::parse, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &SyncArgs) -> Result<Exit, Failure> {
    let timeout_ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let Response::Synced(report) = ask(data, &args.path, &Request::Sync { timeout_ms })? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&report)?;
    } else if report.in_sync {
        output::line(&describe(&report))?;
    }
    if report.in_sync { Ok(Exit::Ok) } else { Err(Failure::timed_out(describe(&report))) }
}

fn describe(report: &SyncReport) -> String {
    match (report.in_sync, report.online) {
        (true, 0) => "sealed; no other device is connected".to_owned(),
        (true, 1) => "in sync with 1 other device".to_owned(),
        (true, n) => format!("in sync with {n} other devices"),
        (false, _) => format!(
            "the sync with {} ({} to send, {} to receive)",
            report.waiting_for.join(", "),
            output::size(report.to_send_bytes),
            output::size(report.to_receive_bytes)
        ),
    }
}
