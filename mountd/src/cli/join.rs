//! `atelier join`: become a member with a ticket, and mount the drive.
//!
//! Leaves out the conversation with the other members (the daemon's, before it mounts).

use std::path::PathBuf;

use clap::Args;

use super::mount::{self, MountOptions};
use crate::identity;
use crate::launch::Action;
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The line that `atelier invite` printed
    ticket: String,
    /// An empty or a new folder
    path: PathBuf,
    #[command(flatten)]
    options: MountOptions,
}

pub(crate) fn run(data: &DataDir, args: &JoinArgs) -> Result<Exit, Failure> {
    // The ticket first: a mistyped one should not leave a data directory behind.
    let ticket = identity::ticket(&args.ticket)?;
    data.prepare()?;
    let place = mount::place(data, &args.path)?;
    if let Some(drive) = data.drive(&ticket.drive)? {
        return Err(Failure::already_member(&drive.drive.name, &drive.mount));
    }
    // A place whose drive is lost may be joined at: that is how a lost device comes back. A place
    // whose drive is here belongs to that drive.
    if let Some(owner) = data.mounts()?.get(&place.path)
        && let Some(owner) = data.drive(&owner)?
        && owner.mount == place.path
    {
        return Err(Failure::other_drive(&place.path, &owner.drive.name));
    }
    args.options.refuse_posix_owners("the drive's maker decided that")?;
    let user = args.options.user_or_default()?;
    let action = Action::Join { ticket: args.ticket.trim().to_owned() };
    mount::launch(data, &place, &user, action, &args.options, None)
}
