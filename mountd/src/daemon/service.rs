//! What the running drive answers on its control socket.
//!
//! Leaves out the socket ([`crate::ipc`]) and the making of the answers ([`crate::drive`]).
//!
//! Invariants:
//! - questions about history and conflicts are answered after the drafts were sealed, so that they
//!   cover every save the asker has finished;
//! - what changes the drive's members or its policy is refused unless this device is an owner;
//! - a device that removes itself or makes itself a reader has published everything before.

use std::sync::Arc;
use std::time::Duration;

use journal::op::Op;
use net::invite::Ticket;

use crate::drive::{Against, Drive, TakeBack, Which};
use crate::ipc::{
    ExportReport, LockPolicy, Progress, Request, Response, Role, Service, SyncReport, Unit,
};
use crate::report::Failure;
use crate::signals::Stop;

/// The longest ticket life, seconds: 30 days.
const EXPIRES_MAX_S: u64 = 30 * 24 * 3_600;
/// The longest a `sync` may wait.
const SYNC_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A drive, as the control socket sees it.
pub(super) struct DriveService {
    drive: Arc<Drive>,
    stop: Stop,
}

impl DriveService {
    pub(super) fn new(drive: Arc<Drive>, stop: Stop) -> Self {
        Self { drive, stop }
    }

    fn must_own(&self) -> Result<(), Failure> {
        match self.drive.own_role() {
            Some(journal::op::Role::Owner) => Ok(()),
            _ => Err(Failure::refused("only an owner of the drive may do that")),
        }
    }

    fn must_belong(&self) -> Result<(), Failure> {
        self.drive.gone().map_or(Ok(()), |how| Err(Failure::gone(how)))
    }

    fn must_write(&self) -> Result<(), Failure> {
        use journal::op::Role;
        match self.drive.own_role() {
            Some(Role::Owner | Role::Editor) => Ok(()),
            _ => Err(Failure::refused("only members who may change the drive may do that")),
        }
    }

    fn restore(&self, path: &str, which: &Which, dest: Option<&str>) -> Result<Response, Failure> {
        self.must_write()?;
        self.seal()?;
        let restored = self.drive.restore(path, which, dest);
        restored.map(Response::Restored).map_err(|e| Failure::not_restored(&e))
    }

    fn snapshot(&self, name: String) -> Result<Response, Failure> {
        self.must_write()?;
        self.seal()?;
        self.drive.take_snapshot(name).map_err(|e| Failure::no_snapshot(&e))?;
        Ok(Response::Done)
    }

    fn seal(&self) -> Result<(), Failure> {
        self.drive.seal_drafts().map_err(|e| Failure::not_published(&e))
    }

    /// What was saved a moment ago is part of the answer to a question, but where nothing may be published any more: a
    /// reader and a removed device may still ask.
    fn seal_to_look(&self) -> Result<(), Failure> {
        as_far_as_allowed(self.drive.seal_saves())
    }

    /// What this device saved before it gives up its own right to write could never be published after that.
    fn seal_to_leave(&self, device: journal::DeviceId) -> Result<(), Failure> {
        if device != self.drive.device() {
            return Ok(());
        }
        self.drive.seal_drafts().map_err(|e| Failure::would_leave_behind(&e))
    }

    fn invite(&self, role: Role, expires_s: u64, uses: u32) -> Result<Response, Failure> {
        self.must_own()?;
        if expires_s == 0 || expires_s > EXPIRES_MAX_S || uses == 0 {
            let what = "a ticket is good for 1 second to 30 days and at least one use";
            return Err(Failure::usage(what, "give --expires 24h or --uses 1"));
        }
        let ticket: Ticket = self.drive.invite(role_op(role), expires_s, uses)?;
        Ok(Response::Ticket(ticket.to_string()))
    }

    fn sync(&self, timeout_ms: u64) -> Result<Response, Failure> {
        self.must_belong()?;
        self.seal()?;
        self.drive.settle_locks();
        let wait = Duration::from_millis(timeout_ms).min(SYNC_MAX);
        let synced = self.drive.sync_with_all(wait);
        self.must_belong()?;
        let status = self.drive.status();
        let names = synced.behind.iter().map(|d| self.drive.device_name(*d)).collect();
        Ok(Response::Synced(SyncReport {
            in_sync: synced.is_complete(),
            online: u32::try_from(synced.reached.len() + synced.behind.len()).unwrap_or(u32::MAX),
            waiting_for: names,
            to_send_bytes: status.to_send_bytes,
            to_receive_bytes: status.to_receive_bytes,
        }))
    }

    fn member(&self, text: &str) -> Result<journal::DeviceId, Failure> {
        self.drive.member_named(text).ok_or_else(|| Failure::no_such_member(text))
    }

    /// An owner falls only to itself and to owners before it, and the last one not at all.
    fn may_demote(&self, device: journal::DeviceId) -> Result<(), Failure> {
        match self.drive.standing_against(device) {
            Against::Allowed => Ok(()),
            Against::LastOwner => Err(Failure::last_owner()),
            Against::Earlier => {
                let what = "an owner is removed or demoted only by itself or by an owner admitted before it";
                Err(Failure::refused(what))
            }
        }
    }

    fn take_back(&self, text: &str, dry_run: bool) -> Result<Response, Failure> {
        self.must_own()?;
        let device = self.drive.set_aside_named(text)?;
        let how = if dry_run { TakeBack::Told } else { TakeBack::Now };
        self.drive.take_back(device, how).map(Response::Aside)
    }

    fn author(&self, op: Op) -> Result<Response, Failure> {
        self.drive.author(vec![op]).map_err(|e| Failure::of(&e))?;
        Ok(Response::Done)
    }
}

fn as_far_as_allowed(sealed: Result<(), vfs::SealError>) -> Result<(), Failure> {
    match sealed {
        Ok(()) | Err(vfs::SealError::ReadOnly { .. }) => Ok(()),
        Err(error) => Err(Failure::not_published(&error)),
    }
}

fn role_op(role: Role) -> journal::op::Role {
    match role {
        Role::Owner => journal::op::Role::Owner,
        Role::Editor => journal::op::Role::Editor,
        Role::Reader => journal::op::Role::Reader,
    }
}

impl Service for DriveService {
    fn handle(
        &self,
        request: Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Response, Failure> {
        let drive = &self.drive;
        match request {
            Request::Ping => Ok(Response::Done),
            Request::Status => Ok(Response::Status(Box::new(drive.status()))),
            Request::Members => Ok(Response::Members(drive.member_rows())),
            Request::Unmount => {
                self.stop.request();
                Ok(Response::Done)
            }
            Request::Invite { role, expires_s, uses } => self.invite(role, expires_s, uses),
            Request::Sync { timeout_ms } => self.sync(timeout_ms),
            Request::History { path } => {
                self.seal_to_look()?;
                let found = drive.history(&path).map_err(|e| Failure::of(&e))?;
                found.map(Response::History).ok_or_else(|| Failure::no_such_file(&path))
            }
            Request::Restore { path, version, at_ms, dest } => {
                let which = match (version, at_ms) {
                    (Some(id), None) => Which::Version(id),
                    (None, Some(ms)) => Which::At(ms),
                    _ => return Err(Failure::usage("say what to restore", "--version or --at")),
                };
                self.restore(&path, &which, dest.as_deref())
            }
            Request::Snapshot { name } => self.snapshot(name),
            Request::Snapshots => {
                let rows = drive.snapshot_rows().map_err(|e| Failure::of(&e))?;
                Ok(Response::Snapshots(rows))
            }
            Request::Conflicts => {
                self.seal_to_look()?;
                let reports = drive.conflict_reports().map_err(|e| Failure::of(&e))?;
                Ok(Response::Conflicts(reports))
            }
            Request::MemberRemove { device } => {
                self.must_own()?;
                let device = self.member(&device)?;
                self.may_demote(device)?;
                self.seal_to_leave(device)?;
                self.author(Op::Remove { device, frontier: drive.tips() })
            }
            Request::MemberTakeBack { device, dry_run } => self.take_back(&device, dry_run),
            Request::Settle { path } => {
                self.must_write()?;
                self.seal_to_look()?;
                match drive.settle(&path)? {
                    0 => Err(Failure::nothing_to_settle(&path)),
                    _ => Ok(Response::Done),
                }
            }
            Request::MemberRole { device, role } => {
                self.must_own()?;
                let device = self.member(&device)?;
                if role != Role::Owner {
                    self.may_demote(device)?;
                }
                if role == Role::Reader {
                    self.seal_to_leave(device)?;
                }
                let role = role_op(role);
                self.author(Op::SetRole { device, role, frontier: drive.tips() })
            }
            Request::Verify { repair } => {
                self.seal_to_look()?;
                drive.verify(repair, progress).map(Response::Verified)
            }
            Request::Gc { dry_run, keep_all_s, keep_daily_s } => {
                as_far_as_allowed(drive.seal_drafts())?;
                let policy = drive.policy_with(keep_all_s, keep_daily_s);
                let how = if dry_run { cas::Sweep::Count } else { cas::Sweep::Remove };
                if !dry_run && (keep_all_s.is_some() || keep_daily_s.is_some()) {
                    self.must_own()?;
                    drive.set_policy(policy)?;
                }
                let stop = || self.stop.is_requested();
                drive.gc(policy, how, &stop, progress).map(Response::Collected)
            }
            Request::Locks => Ok(Response::Locks(drive.lock_rows().map_err(|e| Failure::of(&e))?)),
            Request::Lock { path } => {
                self.must_write()?;
                drive.lock_file(&path).map(|()| Response::Done)
            }
            Request::Unlock { path, break_it } => {
                self.must_write()?;
                drive.unlock_file(&path, break_it).map(|()| Response::Done)
            }
            Request::LockPolicy { policy } => {
                self.must_own()?;
                let policy = match policy {
                    LockPolicy::Enforced => journal::LockPolicy::Enforced,
                    LockPolicy::Advisory => journal::LockPolicy::Advisory,
                };
                drive.set_lock_policy(policy).map(|()| Response::Done)
            }
            Request::Events { after, wait_ms } => {
                let wait = Duration::from_millis(wait_ms);
                Ok(Response::Events(drive.events_after(after, wait)))
            }
            Request::Export { dest } => {
                as_far_as_allowed(drive.seal_drafts())?;
                let done = drive.export(&dest, &mut |done| {
                    progress(Progress {
                        stage: "copying".into(),
                        done: done.bytes,
                        total: None,
                        unit: Unit::Bytes,
                    });
                });
                let done = done.map_err(|e| Failure::not_exported(&e))?;
                let (files, dirs, bytes) = (done.files, done.dirs, done.bytes);
                Ok(Response::Exported(ExportReport { files, dirs, bytes }))
            }
        }
    }
}
