//! `atelier ls-locks`, `atelier lock` and `atelier unlock`: who works on what.

use std::path::{Path, PathBuf};

use clap::Args;

use super::history::in_drive;
use super::{Format, ask, astray, output, running};
use crate::ipc::{LockPolicy, LockRow, Request, Response};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct LsLocksArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// Set what locks mean in the drive (owners)
    #[arg(long)]
    policy: Option<LockPolicy>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The file
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    /// The file
    file: PathBuf,
    /// End the lock whoever holds it (owners); what its holder still saves becomes a conflict copy
    #[arg(long = "break")]
    breaking: bool,
}

pub(crate) fn list(data: &DataDir, args: &LsLocksArgs) -> Result<Exit, Failure> {
    if let Some(policy) = args.policy {
        done(ask(data, &args.path, &Request::LockPolicy { policy })?)?;
    }
    let Response::Locks(locks) = ask(data, &args.path, &Request::Locks)? else {
        return Err(astray());
    };
    if args.format.json {
        output::json(&locks)?;
    } else if locks.is_empty() {
        output::line("no locks")?;
    } else {
        let rows: Vec<_> = locks.iter().map(row).collect();
        output::print(&output::table(&rows))?;
    }
    Ok(Exit::Ok)
}

fn row(lock: &LockRow) -> Vec<String> {
    let kind = match lock.kind.as_str() {
        "presence" => "open",
        "checkout" => "checked out",
        _ => "locked",
    };
    vec![
        output::printable(&lock.path),
        format!("{kind} by {}", output::printable(&lock.holder)),
        output::time(&lock.since),
        sure(lock.unreachable),
    ]
}

/// How sure a lock is.
pub(super) fn sure(unreachable: u32) -> String {
    match unreachable {
        0 => String::new(),
        1 => "1 device unreachable".into(),
        n => format!("{n} devices unreachable"),
    }
}

pub(crate) fn lock(data: &DataDir, args: &LockArgs) -> Result<Exit, Failure> {
    change(data, &args.file, |path| Request::Lock { path })
}

pub(crate) fn unlock(data: &DataDir, args: &UnlockArgs) -> Result<Exit, Failure> {
    let break_it = args.breaking;
    change(data, &args.file, |path| Request::Unlock { path, break_it })?;
    if break_it {
        let Response::Locks(locks) = ask(data, &args.file, &Request::Locks)? else {
            return Err(astray());
        };
        let (_, drive, rest) = running(data, &args.file)?;
        let path = in_drive(&rest, &args.file, &drive.mount)?;
        if locks.iter().any(|lock| lock.mine && lock.kind == "checkout" && lock.path == path) {
            output::note(
                "a program was writing it: it is checked out here now; `atelier unlock` gives it back",
            );
        }
    }
    Ok(Exit::Ok)
}

fn change(
    data: &DataDir,
    file: &Path,
    request: impl FnOnce(String) -> Request,
) -> Result<Exit, Failure> {
    let (mut client, drive, rest) = running(data, file)?;
    let path = in_drive(&rest, file, &drive.mount)?;
    done(client.ask(&request(path), &mut |_| {})?)
}

fn done(response: Response) -> Result<Exit, Failure> {
    match response {
        Response::Done => Ok(Exit::Ok),
        _ => Err(astray()),
    }
}
