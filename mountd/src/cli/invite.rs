//! `atelier invite`: a ticket for another device.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Format, ask, astray, duration, output};
use crate::ipc::{Request, Response, Role};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The drive: its mount point or anything below it
    path: PathBuf,
    /// What the new member may do
    #[arg(long, default_value = "editor")]
    role: Role,
    /// How long the ticket is good for
    #[arg(long, default_value = "24h", value_parser = duration::parse, value_name = "TIME")]
    expires: Duration,
    /// How many devices may use it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &InviteArgs) -> Result<Exit, Failure> {
    let request =
        Request::Invite { role: args.role, expires_s: args.expires.as_secs(), uses: args.uses };
    let Response::Ticket(ticket) = ask(data, &args.path, &request)? else { return Err(astray()) };
    if args.format.json {
        output::json(&json!({ "ticket": ticket }))?;
    } else {
        output::line(&ticket)?;
    }
    Ok(Exit::Ok)
}
