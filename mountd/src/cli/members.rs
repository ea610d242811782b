//! `atelier members`: who belongs to the drive; removing them, changing their roles, taking back what they wrote.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, ask, astray, output};
use crate::ipc::{AsideRow, MemberRow, Request, Response, Role};
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
    /// Let count what a member wrote before it heard that it was removed or made a reader; it stays that
    TakeBack {
        /// Its id, the beginning of it, or its name
        device: String,
        /// Only show what that is
        #[arg(long)]
        dry_run: bool,
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
        Some(Change::TakeBack { device, dry_run }) => {
            (Request::MemberTakeBack { device: device.clone(), dry_run: *dry_run }, String::new())
        }
        Some(Change::Role { device, role }) => (
            Request::MemberRole { device: device.clone(), role: *role },
            format!("{device} is {role} now"),
        ),
    };
    match (ask(data, &args.path, &request)?, args.format.json) {
        (Response::Members(members), true) => output::json(&members)?,
        (Response::Members(members), false) => output::print(&table(&members))?,
        (Response::Aside(rows), true) => output::json(&rows)?,
        (Response::Aside(rows), false) => {
            output::print(&aside(&rows))?;
            if rows.len() >= journal::SET_ASIDE_MAX {
                output::note(
                    "these are the newest; what is older is not listed, and goes with them",
                );
            }
        }
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

fn aside(rows: &[AsideRow]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let what = match row.kind.as_str() {
                "file" => output::size(row.size),
                kind => kind.to_owned(),
            };
            vec![
                row.path.clone(),
                what,
                output::time(&row.time),
                output::short(&row.version).to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() { "nothing is kept aside\n".to_owned() } else { output::table(&rows) }
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
