//! The command line: what can be said, and saying what came of it.
//!
//! One module a verb, each with its arguments and its `run`. Leaves out everything the daemon does:
//! a verb asks it and shows the answer.
//!
//! Invariants:
//! - the answer goes to standard output and nothing else does; progress, notices and errors go to
//!   standard error, so that `--json` can be piped;
//! - the exit codes are those of [`Exit`].

mod completions;
mod conflicts;
mod duration;
mod export;
mod gc;
mod history;
mod invite;
mod join;
mod locks;
mod members;
mod mount;
pub(crate) mod output;
mod progress;
mod restore;
mod snapshots;
mod status;
mod sync;
mod unmount;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::demo::DemoArgs;
use crate::doctor::DoctorArgs;
use crate::ipc::client::ConnectError;
use crate::ipc::{Client, Request, Response};
use crate::paths::{DataDir, Description};
use crate::report::{Exit, Failure};
use crate::{demo, doctor, start};

/// The hidden verb a background daemon is started with.
pub(crate) const DAEMON_VERB: &str = "daemon";

/// A shared drive without a server.
#[derive(Debug, Parser)]
#[command(name = "atelier", version, about, max_term_width = 100)]
pub struct Cli {
    /// Where this device keeps its drives and its key.
    #[arg(long, global = true, env = "ATELIER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Mount a drive; the first time, make it
    Mount(mount::MountArgs),
    /// End a mounted drive, with everything sealed
    Unmount(unmount::UnmountArgs),
    /// Make a ticket with which another device can join
    Invite(invite::InviteArgs),
    /// Join a drive with a ticket, and mount it
    Join(join::JoinArgs),
    /// Who is here, and is everything everywhere?
    Status(status::StatusArgs),
    /// Wait until all connected members have everything
    Sync(sync::SyncArgs),
    /// All versions of a file
    History(history::HistoryArgs),
    /// Bring back a file or folder as it was
    Restore(restore::RestoreArgs),
    /// Give the drive as it is now a name
    Snapshot(snapshots::SnapshotArgs),
    /// The moments that have a name
    Snapshots(snapshots::SnapshotsArgs),
    /// Files that were changed on two sides at once
    Conflicts(conflicts::ConflictsArgs),
    /// Who has locked or opened what
    LsLocks(locks::LsLocksArgs),
    /// Check a file out: nobody else can write it until it is given back
    Lock(locks::LockArgs),
    /// Give a file back
    Unlock(locks::UnlockArgs),
    /// Who belongs to the drive, and who may do what
    Members(members::MembersArgs),
    /// Check every chunk and every link of the journal
    Verify(verify::VerifyArgs),
    /// Give back the room of old versions that need not be kept
    Gc(gc::GcArgs),
    /// A plain copy of the drive, for which no Atelier is needed
    Export(export::ExportArgs),
    /// Can this machine mount? Ports, keyring, FUSE, time
    Doctor(DoctorArgs),
    /// Two devices on this machine, step by step
    Demo(DemoArgs),
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
    /// What a background daemon is started with; not for people.
    #[command(name = DAEMON_VERB, hide = true)]
    Daemon {
        /// The mount point, for the list of processes.
        path: PathBuf,
    },
}

/// A query's output.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Reads the command line, does what it says.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version come this way too, with the code 0.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    if matches!(cli.verb, Verb::Daemon { .. }) {
        return start::child().into();
    }
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::error(&failure);
            failure.exit().into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let data = match &cli.verb {
        Verb::Completions(args) => return completions::run(args),
        Verb::Demo(args) => return demo::run(args),
        _ => DataDir::locate(cli.data_dir.as_deref())?,
    };
    match &cli.verb {
        Verb::Mount(args) => mount::run(&data, args),
        Verb::Unmount(args) => unmount::run(&data, args),
        Verb::Invite(args) => invite::run(&data, args),
        Verb::Join(args) => join::run(&data, args),
        Verb::Status(args) => status::run(&data, args),
        Verb::Sync(args) => sync::run(&data, args),
        Verb::History(args) => history::run(&data, args),
        Verb::Restore(args) => restore::run(&data, args),
        Verb::Snapshot(args) => snapshots::take(&data, args),
        Verb::Snapshots(args) => snapshots::list(&data, args),
        Verb::Conflicts(args) => conflicts::run(&data, args),
        Verb::LsLocks(args) => locks::list(&data, args),
        Verb::Lock(args) => locks::lock(&data, args),
        Verb::Unlock(args) => locks::unlock(&data, args),
        Verb::Members(args) => members::run(&data, args),
        Verb::Verify(args) => verify::run(&data, args),
        Verb::Gc(args) => gc::run(&data, args),
        Verb::Export(args) => export::run(&data, args),
        Verb::Doctor(args) => doctor::run(&data, args),
        Verb::Completions(_) | Verb::Demo(_) | Verb::Daemon { .. } => Ok(Exit::Ok),
    }
}

/// The running drive that `path` is in, and the rest of the path.
fn running(data: &DataDir, path: &Path) -> Result<(Client, Description, PathBuf), Failure> {
    let (drive, rest) = data.find_drive(path)?;
    let client = connect(data, &drive)?;
    Ok((client, drive, rest))
}

/// The daemon of a drive.
fn connect(data: &DataDir, drive: &Description) -> Result<Client, Failure> {
    Client::connect(&data.store_dir(&drive.id()?)).map_err(|e| match e {
        ConnectError::NobodyListens => Failure::not_running(&drive.drive.name, &drive.mount),
        ConnectError::Failed(failure) => failure,
    })
}

/// Asks the drive of `path` one thing.
fn ask(data: &DataDir, path: &Path, request: &Request) -> Result<Response, Failure> {
    let (mut client, ..) = running(data, path)?;
    let mut bar = progress::Bar::new();
    client.ask(request, &mut |step| bar.show(step))
}

/// The daemon answered something else than what was asked.
fn astray() -> Failure {
    Failure::other_version("the running daemon")
}

#[cfg(test)]
mod tests;
