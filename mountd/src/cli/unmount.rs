//! `atelier unmount`: ask the daemon to end; detach what has no daemon.
//!
//! Returns when the process has gone: whoever unmounts to shut down or to copy the store relies on
//! it. What the daemon could not publish before it went is said.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::output;
use crate::daemon::{Left, left_in};
use crate::ipc::client::ConnectError;
use crate::ipc::{Client, Request};
use crate::mountpoint;
use crate::paths::{DataDir, Description, store};
use crate::report::{Code, Exit, Failure};

/// How long the daemon may take to flush and to hand over what exists here only.
const GO_MAX: Duration = Duration::from_secs(120);
/// How long it may take after its mount was taken from it.
const GO_FORCED_MAX: Duration = Duration::from_secs(20);
/// Between two looks.
const GO_POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
}

pub(crate) fn run(data: &DataDir, args: &UnmountArgs) -> Result<Exit, Failure> {
    let (drive, _) = data.find_drive(&args.path)?;
    let dir = data.store_dir(&drive.id()?);
    let asked = match Client::connect(&dir) {
        Ok(mut client) => client.ask(&Request::Unmount, &mut |_| {}).map(|_| ()),
        Err(ConnectError::NobodyListens) if store::is_locked(&dir) => {
            Err(Failure::no_answer("it holds the store, but does not listen"))
        }
        Err(ConnectError::NobodyListens) => return without_daemon(&drive),
        Err(ConnectError::Failed(failure)) => Err(failure),
    };
    match asked {
        Ok(()) => {
            if wait_until_gone(&dir, GO_MAX) {
                return match left_in(&dir) {
                    Left::Nothing => Ok(Exit::Ok),
                    Left::ForNow => Err(Failure::left_unpublished(&dir.join(store::LOG_NAME))),
                    Left::ForGood => Err(Failure::left_for_good(&drive.mount)),
                };
            }
            Err(Failure::no_answer(format!("it did not end in {} s", GO_MAX.as_secs())))
        }
        // It answered, and not this: a mount in use, for one. That is for the user to decide.
        Err(failure) if failure.code != Code::NoAnswer => Err(failure),
        Err(failure) => force(&drive.mount, &dir, &failure),
    }
}

/// No daemon: what is still mounted is a dead mount.
fn without_daemon(drive: &Description) -> Result<Exit, Failure> {
    match mountpoint::mounted_at(&drive.mount) {
        Some(kind) if kind.starts_with("fuse") => {
            mountpoint::detach(&drive.mount)?;
            output::note("the drive's daemon was gone; its dead mount has been taken away");
            Ok(Exit::Ok)
        }
        _ => Err(Failure::not_running(&drive.drive.name, &drive.mount)),
    }
}

/// The daemon is there and silent: its mount is taken from it, which it notices.
fn force(mount: &Path, dir: &Path, why: &Failure) -> Result<Exit, Failure> {
    output::note(&format!("{}; the mount is detached without it", why.cause));
    mountpoint::detach(mount)?;
    if wait_until_gone(dir, GO_FORCED_MAX) { Ok(Exit::Ok) } else { Err(why.clone()) }
}

fn wait_until_gone(dir: &Path, at_most: Duration) -> bool {
    let start = Instant::now();
    while store::is_locked(dir) {
        if start.elapsed() > at_most {
            return false;
        }
        std::thread::sleep(GO_POLL);
    }
    true
}
