//! `atelier export`: a plain copy of the tree.

use std::path::PathBuf;

use clap::Args;

use super::{Format, astray, output, progress, running};
use crate::ipc::{Request, Response};
use crate::paths::{DataDir, resolve};
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// An empty or a new folder
    dest: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &ExportArgs) -> Result<Exit, Failure> {
    let (mut client, drive, _) = running(data, &args.path)?;
    // The daemon has another current directory, and must not write into its own mount.
    let dest =
        std::path::absolute(&args.dest).map_err(|e| Failure::bad_destination(&args.dest, e))?;
    let dest = resolve::real(&dest, &|p| p == drive.mount)
        .map_err(|e| Failure::bad_destination(&args.dest, e))?;
    if dest.starts_with(&drive.mount) {
        return Err(Failure::bad_destination(&args.dest, "it is in the drive itself"));
    }
    if dest.starts_with(data.root()) {
        return Err(Failure::bad_destination(&args.dest, "it is in the data directory"));
    }
    let mut bar = progress::Bar::new();
    let answer = client.ask(&Request::Export { dest: dest.clone() }, &mut |step| bar.show(step))?;
    let Response::Exported(report) = answer else { return Err(astray()) };
    drop(bar);
    if args.format.json {
        output::json(&report)?;
    } else {
        output::line(&format!(
            "{} files and {} folders, {}, in {}",
            report.files,
            report.dirs,
            output::size(report.bytes),
            dest.display()
        ))?;
    }
    Ok(Exit::Ok)
}
