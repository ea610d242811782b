//! `atelier members`: who belongs to the drive; removing them and changing their roles.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, ask, astray, output};
use crate::ipc::{MemberRow, Request, Response, Role};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct MembersArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Put a member out; it keeps what it has and gets nothing more
    Remove {
        /// Its id, the beginning of it, or its name
        device: String,
    },
    /// Give a member another role
    Role {
        /// Its id, the beginning of it, or its name
        device: String,
        /// The new role
        role: Role,
    },
}

pub(crate) fn run(data: &DataDir, args: &MembersArgs) -> Result<Exit, Failure> {
    let (request, done) = match &args.change {
        None => (Request::Members, String::new()),
        Some(Change::Remove { device }) => {
            (Request::MemberRemove { device: device.clone() }, format!("removed {device}"))
        }
        Some(Change::Role { device, role }) => (
            Request::MemberRole { device: device.clone(), role: *role },
            format!("{device} is {role} now"),
        ),
    };
    match (ask(data, &args.path, &request)?, args.format.json) {
        (Response::Members(members), true) => output::json(&members)?,
        (Response::Members(members), false) => output::print(&table(&members))?,
        (Response::Done, true) => output::json(&serde_json::json!({}))?,
        (Response::Done, false) => output::line(&done)?,
        _ => return Err(astray()),
    }
    Ok(Exit::Ok)
}

/// The members under each other.
pub(crate) fn table(members: &[MemberRow]) -> String {
    let rows: Vec<_> = members.iter().map(row).collect();
    output::table(&rows)
}

fn row(member: &MemberRow) -> Vec<String> {
    let state = match (member.online, member.in_sync, &member.last_seen) {
        (true, true, _) => "online, in sync".to_owned(),
        (true, false, _) => "online, syncing".to_owned(),
        (false, _, Some(time)) => format!("last seen {}", output::time(time)),
        (false, _, None) => "never seen".to_owned(),
    };
    vec![member.name.clone(), member.role.to_string(), output::short(&member.id).to_owned(), state]
}
