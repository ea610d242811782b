//! `atelier conflicts`: names that hold several versions, and moves of folders that lost.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Format, ask, astray, output};
use crate::ipc::{Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Moves of a folder that lost to another are dealt with: list them no more
    Settle {
        /// The folder, as it is listed, or a path to it
        name: String,
    },
}

pub(crate) fn run(data: &DataDir, args: &ConflictsArgs) -> Result<Exit, Failure> {
    if let Some(Change::Settle { name }) = &args.change {
        let path = listed(data, args, name)?;
        return match (ask(data, &args.path, &Request::Settle { path })?, args.format.json) {
            (Response::Done, true) => output::json(&serde_json::json!({})).map(|()| Exit::Ok),
            (Response::Done, false) => output::line("settled").map(|()| Exit::Ok),
            _ => Err(astray()),
        };
    }
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
                .map(|c| {
                    let lost = if c.moved { "" } else { "not moved here: another move was first" };
                    let (path, author) = (format!("  {}", c.path), c.author.clone());
                    vec![path, author, output::time(&c.time), lost.to_owned()]
                })
                .collect();
            output::print(&output::table(&rows))?;
        }
    }
    Ok(Exit::Ok)
}

/// A folder as `conflicts` lists it, from that, or from a path to it.
fn listed(data: &DataDir, args: &ConflictsArgs, name: &str) -> Result<String, Failure> {
    let is_path = ["/", "./", "../"].iter().any(|begin| name.starts_with(begin));
    if is_path {
        let (drive, _) = data.find_drive(&args.path)?;
        if let Ok((other, rest)) = data.find_drive(Path::new(name))
            && other.drive.id == drive.drive.id
            && let Some(rest) = rest.to_str()
        {
            return Ok(rest.to_owned());
        }
    }
    Ok(name.trim_start_matches("./").trim_end_matches('/').to_owned())
}
