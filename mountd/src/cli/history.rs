//! `atelier history`: all versions of a file.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Format, astray, output, running};
use crate::ipc::{Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// A file in a drive; it may have been deleted
    file: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &HistoryArgs) -> Result<Exit, Failure> {
    let (mut client, drive, rest) = running(data, &args.file)?;
    let path = in_drive(&rest, &args.file, &drive.mount)?;
    let Response::History(report) = client.ask(&Request::History { path }, &mut |_| {})? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&report)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = report
        .versions
        .iter()
        .map(|v| {
            vec![
                output::time(&v.time),
                v.author.clone(),
                output::size(v.size),
                output::short(&v.version).to_owned(),
                match (v.official, v.gone, v.aside) {
                    (true, ..) => "official",
                    (false, true, _) => "bytes are gone",
                    (false, false, true) => "does not count",
                    (false, false, false) => "",
                }
                .to_owned(),
                v.odd.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::print(&output::table(&rows))?;
    Ok(Exit::Ok)
}

/// The path as the daemon takes it: below the mount's root, `/` between the names.
pub(super) fn in_drive(rest: &Path, given: &Path, mount: &Path) -> Result<String, Failure> {
    match rest.to_str() {
        Some("") => Err(Failure::usage(
            format!("{} is a drive, not a file", given.display()),
            format!("name a file in it, as {}/NAME", mount.display()),
        )),
        Some(path) => Ok(path.to_owned()),
        None => Err(Failure::bad_path(given, "it is not valid UTF-8, so no drive has it")),
    }
}
