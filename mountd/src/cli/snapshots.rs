//! `atelier snapshot` and `atelier snapshots`: moments with a name.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ask, astray, output};
use crate::ipc::{Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// The name the drive as it is now is found under, in .snapshots
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn take(data: &DataDir, args: &SnapshotArgs) -> Result<Exit, Failure> {
    match ask(data, &args.path, &Request::Snapshot { name: args.name.clone() })? {
        Response::Done => Ok(Exit::Ok),
        _ => Err(astray()),
    }
}

pub(crate) fn list(data: &DataDir, args: &SnapshotsArgs) -> Result<Exit, Failure> {
    let Response::Snapshots(snapshots) = ask(data, &args.path, &Request::Snapshots)? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&snapshots)?;
    } else if snapshots.is_empty() {
        output::line("no snapshots")?;
    } else {
        let row = |s: &crate::ipc::SnapshotRow| vec![output::time(&s.time), s.name.clone()];
        let rows: Vec<_> = snapshots.iter().map(row).collect();
        output::print(&output::table(&rows))?;
    }
    Ok(Exit::Ok)
}
