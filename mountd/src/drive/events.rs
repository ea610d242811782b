//! What the user is told while it happens: on the control socket, as desktop notifications, and as notices.
//!
//! Leaves out: what lasts and is found by looking (`status`).
//!
//! Invariants:
//! - telling waits for nobody;
//! - the last [`EVENTS_MAX`] are kept; whoever asks for older ones is told that some were lost;
//! - the same is told once in [`AGAIN`], so that a program that tries over and over floods nobody.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vfs::{Happening, Hold, Holder};

use super::Drive;
use crate::ipc::{EventRow, EventsReport, rfc3339};

/// Events kept.
const EVENTS_MAX: usize = 1_024;
/// Longest wait of one question.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// The same is not told again within this time.
const AGAIN: Duration = Duration::from_secs(10);
/// Desktop notifications at most, within [`AGAIN`].
const DESKTOP_MAX: usize = 5;

/// Events and who waits for them.
#[derive(Default)]
pub(super) struct Events {
    kept: Mutex<Kept>,
    came: Condvar,
}

#[derive(Default)]
struct Kept {
    rows: VecDeque<EventRow>,
    /// Number of the newest; the first has 1.
    newest: u64,
    /// Nobody waits any more: the drive ends.
    ended: bool,
    told: VecDeque<(Instant, String)>,
}

impl Kept {
    /// Whether something may be said now, that was not said a moment ago.
    fn is_news(&mut self, text: &str) -> bool {
        let now = Instant::now();
        self.told.retain(|(at, _)| now.duration_since(*at) < AGAIN);
        if self.told.iter().any(|(_, told)| told == text) || self.told.len() >= EVENTS_MAX {
            return false;
        }
        self.told.push_back((now, text.to_owned()));
        true
    }
}

impl Drive {
    /// Tells programs that listen, and the desktop.
    pub(super) fn tell(&self, kind: &str, path: &str, who: &str, text: &str) {
        let show = {
            let mut kept = self.events.kept.lock();
            if !kept.is_news(text) {
                return;
            }
            kept.newest += 1;
            let row = EventRow {
                number: kept.newest,
                time: rfc3339(self.clock.wall_ms()),
                kind: kind.to_owned(),
                path: path.to_owned(),
                who: who.to_owned(),
                text: text.to_owned(),
            };
            if kept.rows.len() >= EVENTS_MAX {
                kept.rows.pop_front();
            }
            kept.rows.push_back(row);
            kept.told.len() <= DESKTOP_MAX
        };
        self.events.came.notify_all();
        tracing::info!(kind, path, who, "{text}");
        if show {
            show_on_desktop(&self.journal.drive().name, text);
        }
    }

    /// What happened after event `after`, waiting for something to happen at most `wait`.
    pub fn events_after(&self, after: u64, wait: Duration) -> EventsReport {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let mut kept = self.events.kept.lock();
        while kept.newest == after
            && !kept.ended
            && !self.events.came.wait_until(&mut kept, until).timed_out()
        {}
        let events: Vec<EventRow> =
            kept.rows.iter().filter(|row| row.number > after).cloned().collect();
        let first = kept.rows.front().map_or(kept.newest + 1, |row| row.number);
        // Numbers begin anew with the daemon.
        let lost = after > kept.newest || after + 1 < first;
        EventsReport { next: kept.newest, lost, events }
    }

    /// The drive ends: whoever waits is answered, and nobody waits from now on.
    pub fn end_events(&self) {
        self.events.kept.lock().ended = true;
        self.events.came.notify_all();
    }

    /// What the file system came upon.
    pub(super) fn tell_happening(&self, what: Happening) {
        let path = |register| self.path_of_register(register).unwrap_or_default();
        match &what {
            Happening::Refused(register, holder) => {
                self.note_refused(register);
                let (path, who) = (path(register), &holder.name);
                let how = match holder.hold {
                    Hold::Checkout => "has checked it out",
                    Hold::Session | Hold::Presence => "is working on it",
                };
                self.tell("refused", &path, who, &format!("{path} cannot be written: {who} {how}"));
            }
            Happening::AlsoOpen(register, holder) => {
                let (path, who) = (path(register), &holder.name);
                let how = match holder.hold {
                    Hold::Checkout => "has checked it out",
                    Hold::Session => "is writing it",
                    Hold::Presence => "has it open too",
                };
                self.tell("also_open", &path, who, &format!("{path}: {who} {how}"));
            }
            Happening::StaleRemoval(register) => {
                let path = path(register);
                let text = format!(
                    "{path} was not removed: it was saved elsewhere since the program that removed it has read it"
                );
                self.notice(text.clone(), "look at it, and remove it again".into());
                self.tell("stale_removal", &path, "", &text);
            }
            Happening::StaleSave(register, version) => {
                let path = path(register);
                let shown = self.journal.lookup(register.dir, &register.name);
                let who = shown.ok().flatten().map(|node| self.device_name(node.author));
                let who = who.unwrap_or_default();
                tracing::info!(%version, "a save over a version its program had not seen");
                let text = format!(
                    "what you saved as {path} is beside it as a conflict copy: {who} had saved it meanwhile"
                );
                let remedy = "open both, keep what is needed, and remove the copy";
                self.notice(text.clone(), remedy.into());
                self.tell("stale_save", &path, &who, &text);
            }
        }
    }

    pub(super) fn tell_lock_lost(&self, path: &str, by: Option<&Holder>) {
        let who = by.map_or(String::new(), |holder| holder.name.clone());
        let text = match by {
            Some(holder) => format!("{} holds {path} now", holder.name),
            None => format!("the lock of {path} has ended: this device was away"),
        };
        if by.is_some() {
            let remedy =
                "what is still saved there becomes a conflict copy; read the file again first";
            self.notice(text.clone(), remedy.into());
        }
        self.tell("lock_lost", path, &who, &text);
    }
}

/// Shows a line where there is a desktop with `notify-send`; elsewhere nothing.
fn show_on_desktop(drive: &str, text: &str) {
    if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_none() {
        return;
    }
    let mut command = Command::new("notify-send");
    command.args(["--app-name=Atelier", "--", drive, text]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        // Reaped in passing: it ends within moments.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => tracing::debug!(%error, "no desktop notification"),
    }
}
