//! `atelier restore`: a file or a folder as it was.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::{Format, astray, output, running};
use crate::ipc::{Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub(crate) struct RestoreArgs {
    /// A file or folder in a drive; it may have been removed
    file: PathBuf,
    /// A version of the file, as `history` shows it; the beginning of its id is enough
    #[arg(long, group = "which", value_name = "ID")]
    version: Option<String>,
    /// What it was at this time, in UTC: 2026-11-23T16:04:05Z, or shorter
    #[arg(long, group = "which", value_name = "TIME")]
    at: Option<String>,
    /// Put it here, in the same drive, and leave what is there now alone
    #[arg(long, value_name = "DEST")]
    to: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &RestoreArgs) -> Result<Exit, Failure> {
    let (mut client, drive, rest) = running(data, &args.file)?;
    let path = text(&rest, &args.file)?;
    let at_ms = args.at.as_deref().map(at_ms).transpose()?;
    let dest = match &args.to {
        None => None,
        Some(dest) => Some(match data.find_drive(dest) {
            Ok((other, rest)) if other.drive.id == drive.drive.id => text(&rest, dest)?,
            _ => {
                let why = format!("it is not in the drive {}", drive.drive.name);
                return Err(Failure::bad_target(dest, why));
            }
        }),
    };
    let request = Request::Restore { path, version: args.version.clone(), at_ms, dest };
    let Response::Restored(report) = client.ask(&request, &mut |_| {})? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&report)?;
    } else if report.is_nothing() {
        output::line("nothing to do: it is like that now")?;
    } else {
        output::line(&format!(
            "restored {} files and {} folders, removed {}",
            report.files, report.dirs, report.removed
        ))?;
    }
    Ok(Exit::Ok)
}

fn text(rest: &Path, given: &Path) -> Result<String, Failure> {
    let text = rest.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::bad_path(given, "it is not valid UTF-8, so no drive has it"))
}

/// The last millisecond of what a time means; a full RFC 3339 time may have a zone and a fraction.
fn at_ms(text: &str) -> Result<u64, Failure> {
    let exact = || text.parse::<jiff::Timestamp>().ok()?.as_millisecond().try_into().ok();
    vfs::past::time::parse(text).or_else(exact).ok_or_else(|| {
        Failure::usage(
            format!("{text:?} is no time"),
            "give it in UTC, as 2026-11-23T16:04:05Z, 2026-11-23T16:04 or 2026-11-23",
        )
    })
}
