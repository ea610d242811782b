//! `atelier status`: one drive, or all of this data directory.
//!
//! With a path the JSON is one report, without one a list of them. A drive that is not mounted is
//! reported too, with a notice that says so.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ask, astray, connect, members, output};
use crate::ipc::{Notice, Request, Response, StatusReport, rfc3339};
use crate::paths::{DataDir, Description};
use crate::report::{Code, Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The drive: its mount point or anything below it; all drives if none is named
    path: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(data: &DataDir, args: &StatusArgs) -> Result<Exit, Failure> {
    if let Some(path) = &args.path {
        let Response::Status(report) = ask(data, path, &Request::Status)? else {
            return Err(astray());
        };
        if args.format.json {
            output::json(&report)?
        } else {
            output::print(&describe(&report))?
        }
        return Ok(Exit::Ok);
    }
    let (drives, unreadable) = data.drives()?;
    let reports: Vec<StatusReport> =
        drives.iter().map(|drive| one(data, drive)).collect::<Result<_, _>>()?;
    if args.format.json {
        output::json(&reports)?;
    } else if reports.is_empty() && unreadable.is_empty() {
        output::line("no drives yet; `atelier mount PATH` makes one")?;
    } else {
        let texts: Vec<String> = reports.iter().map(describe).collect();
        output::print(&texts.join("\n"))?;
    }
    // The readable ones have been shown; the others make it a failure.
    unreadable.into_iter().next().map_or(Ok(Exit::Ok), Err)
}

/// A drive's report, also if it is not running: one that hangs must not hide the others.
fn one(data: &DataDir, drive: &Description) -> Result<StatusReport, Failure> {
    let answer = connect(data, drive).and_then(|mut c| c.ask(&Request::Status, &mut |_| {}));
    match answer {
        Ok(Response::Status(report)) => Ok(*report),
        Ok(_) => Err(astray()),
        Err(failure) => Ok(silent(drive, &failure)),
    }
}

/// What can be said of a drive that does not answer.
fn silent(drive: &Description, failure: &Failure) -> StatusReport {
    let what = match failure.code {
        Code::NotRunning => "not mounted".to_owned(),
        _ => failure.cause.clone(),
    };
    StatusReport {
        drive: drive.drive.clone(),
        path: drive.mount.display().to_string(),
        device: drive.device.clone(),
        notices: vec![Notice {
            what,
            since: rfc3339(crate::clock::SystemClock.wall_ms()),
            remedy: failure.remedy.clone(),
        }],
        ..StatusReport::default()
    }
}

/// A report for people.
fn describe(report: &StatusReport) -> String {
    let mut rows = vec![
        pair("drive", &format!("{} ({})", report.drive.name, output::short(&report.drive.id))),
        pair("mounted at", &report.path),
        pair(
            "this device",
            &format!("{} ({})", report.device.name, output::short(&report.device.id)),
        ),
    ];
    // A drive that is not mounted has no members to show, and nothing below would be true.
    if !report.members.is_empty() {
        rows.extend(running_rows(report));
    }
    let mut text = output::table(&rows);
    if !report.members.is_empty() {
        text.push_str("members\n");
        for line in members::table(&report.members).lines() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    for lock in &report.locks {
        let kind = if lock.kind == "presence" { "open" } else { "locked" };
        let away = super::locks::sure(lock.unreachable);
        let away = if away.is_empty() { away } else { format!(", {away}") };
        text.push_str(&output::printable(&format!(
            "{kind}: {} by {} since {}{away}",
            lock.path,
            lock.holder,
            output::time(&lock.since)
        )));
        text.push('\n');
    }
    for notice in &report.notices {
        text.push_str(&output::printable(&format!("note: {}", notice.what)));
        if !notice.remedy.is_empty() {
            text.push_str(&output::printable(&format!("; {}", notice.remedy)));
        }
        text.push('\n');
    }
    text
}

fn running_rows(report: &StatusReport) -> Vec<Vec<String>> {
    let sync = match (report.in_sync, report.to_send_bytes, report.to_receive_bytes) {
        (true, ..) => "yes".to_owned(),
        (false, send, receive) => {
            format!("no; {} to send, {} to receive", output::size(send), output::size(receive))
        }
    };
    let safe =
        if report.safe_to_close { "yes" } else { "not yet: some of it exists on this device only" };
    let mut rows = vec![pair("in sync", &sync), pair("safe to close", safe)];
    for (name, count) in [
        ("being written", report.drafts),
        ("arriving", report.arriving),
        ("conflicts", report.conflicts),
    ] {
        if count > 0 {
            rows.push(pair(name, &count.to_string()));
        }
    }
    let collected = report
        .last_gc
        .as_ref()
        .map_or_else(String::new, |last| format!(", collected {}", output::time(&last.time)));
    rows.push(pair("store", &format!("{}{collected}", output::size(report.store_bytes))));
    let cost = match &report.history {
        Some(history) => {
            format!("{} ({})", output::size(history.bytes), output::time(&history.time))
        }
        None => "`atelier gc --dry-run` tells what they take".to_owned(),
    };
    rows.push(pair("old versions", &format!("{}; {cost}", super::gc::policy(&report.policy))));
    rows.push(pair("tree", output::short(&report.tree_hash)));
    for address in &report.listen {
        rows.push(pair("reachable at", address));
    }
    rows
}

fn pair(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::{DeviceRow, DriveRow, MemberRow, Role};

    fn report() -> StatusReport {
        StatusReport {
            drive: DriveRow { name: "film".into(), id: "ab".repeat(32) },
            path: "/mnt/film".into(),
            device: DeviceRow { name: "anna".into(), id: "cd".repeat(32) },
            members: vec![MemberRow {
                name: "anna".into(),
                id: "cd".repeat(32),
                role: Role::Owner,
                online: true,
                in_sync: true,
                last_seen: None,
            }],
            conflicts: 2,
            to_send_bytes: 2048,
            tree_hash: "ef".repeat(32),
            ..StatusReport::default()
        }
    }

    #[test]
    fn people_see_what_matters() {
        let text = describe(&report());
        for part in
            ["film (abababab)", "/mnt/film", "2.0 KiB to send", "not yet", "conflicts", "owner"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("arriving"), "what is zero is left out");
    }

    #[test]
    fn a_drive_that_is_not_mounted_claims_nothing() {
        let mut report = report();
        report.members.clear();
        let text = describe(&report);
        assert!(!text.contains("in sync") && !text.contains("safe"), "{text}");
    }
}
