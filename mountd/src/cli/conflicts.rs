//! `atelier conflicts`: names that hold several versions.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ask, astray, output};
use crate::ipc::{Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &ConflictsArgs) -> Result<Exit, Failure> {
    let Response::Conflicts(conflicts) = ask(data, &args.path, &Request::Conflicts)? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&conflicts)?;
    } else if conflicts.is_empty() {
        output::line("no conflicts")?;
    } else {
        for conflict in &conflicts {
            output::line(&output::printable(&conflict.path))?;
            let rows: Vec<_> = conflict
                .copies
                .iter()
                .map(|c| vec![format!("  {}", c.path), c.author.clone(), output::time(&c.time)])
                .collect();
            output::print(&output::table(&rows))?;
        }
    }
    Ok(Exit::Ok)
}
