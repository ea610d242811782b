//! The known causes of failure, each with its own words and its own way out.
//!
//! Leaves out: when they apply. Kept in one place so that the words agree with each other.

use std::fmt::Display;
use std::io;
use std::path::Path;

use super::{Code, Failure, chain};
use crate::drive::Gone;

/// How a removed device comes back. Its old store stays what it is: a device is removed for good.
pub const JOIN_AGAIN: &str = "to come back, ask an owner for a ticket and join as a new device, in another data directory (`atelier --data-dir DIR join TICKET PATH`)";

/// What a device hears that is in no list of members, and never was in the view of the drive.
pub const FORGOTTEN: &str =
    "the drive does not know this device any more: whoever admitted it was removed meanwhile";

/// Devices named in one line.
const NAMED_MAX: usize = 8;

impl Failure {
    /// Something nobody foresaw.
    pub fn internal(cause: impl Display) -> Self {
        let remedy = "see the drive's daemon.log; `atelier doctor` checks this machine";
        Self::new(Code::Internal, cause.to_string(), remedy)
    }

    /// Any error of ours that has no better place, with everything it comes from.
    pub fn of(error: &dyn std::error::Error) -> Self {
        Self::internal(chain(error))
    }

    /// The command line makes no sense.
    pub fn usage(cause: impl Display, remedy: impl Display) -> Self {
        Self::new(Code::Usage, cause.to_string(), remedy.to_string())
    }

    /// A file or directory could not be used; full disks and missing rights have their own words.
    pub fn io(verb: &str, path: &Path, error: &io::Error) -> Self {
        let cause = format!("cannot {verb} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::disk_full(path),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::new(Code::Unreadable, cause, "check its owner and its permissions")
            }
            _ => Self::new(Code::Unreadable, cause, "check the path and the disk it is on"),
        }
    }

    // Locks

    /// Somebody else has it.
    pub fn locked_by(path: &str, holder: &str) -> Self {
        Self::new(
            Code::Refused,
            format!("{holder} has locked {path}"),
            "ask them, or an owner of the drive (`atelier unlock FILE --break`)",
        )
    }

    /// A program on this device has it.
    pub fn locked_by_a_program(path: &str) -> Self {
        Self::new(
            Code::Refused,
            format!("a program on this device is working on {path}"),
            "close the file there: the lock ends by itself",
        )
    }

    /// Nobody has it.
    pub fn not_locked(path: &str) -> Self {
        Self::new(
            Code::NotLocked,
            format!("{path} is not locked"),
            "`atelier ls-locks PATH` shows what is",
        )
    }

    /// A folder cannot be checked out.
    pub fn only_files_are_locked(path: &str) -> Self {
        Self::usage(format!("{path} is a folder"), "lock the files in it one by one")
    }

    /// A conflict copy goes by the name of what it is a copy of.
    pub fn copies_are_not_locked(path: &str) -> Self {
        Self::usage(
            format!("{path} is a conflict copy"),
            "lock the file it is a copy of, or give the copy a name of its own first",
        )
    }

    // Tickets and joining

    /// The text is no ticket.
    pub fn ticket_malformed(why: impl Display) -> Self {
        Self::new(
            Code::TicketMalformed,
            format!("this is not a ticket: {why}"),
            "copy the whole line that `atelier invite` printed, from `atelier1` to its end",
        )
    }

    /// The ticket's time is over.
    pub fn ticket_expired(since: impl Display) -> Self {
        Self::new(
            Code::TicketExpired,
            format!("the ticket expired at {since}"),
            "ask an owner for a new one (`atelier invite PATH --expires 24h`)",
        )
    }

    /// The ticket has been used as often as it may be.
    pub fn ticket_used() -> Self {
        Self::new(
            Code::TicketUsed,
            "the ticket has been used already",
            "ask an owner for a new one (`atelier invite PATH`); one ticket lets one device in",
        )
    }

    /// The drive that answered does not know the ticket.
    pub fn ticket_foreign() -> Self {
        Self::new(
            Code::TicketForeign,
            "the ticket is not for this drive, or its invitation was withdrawn",
            "ask an owner of the drive for a new one (`atelier invite PATH`)",
        )
    }

    /// None of the ticket's devices answered.
    pub fn nobody_answered(addresses: impl Display) -> Self {
        Self::new(
            Code::NobodyAnswered,
            format!("no member of the drive answered at {addresses}"),
            "have the inviting device mount the drive, and check that a firewall lets it be reached",
        )
    }

    /// This device has the drive already.
    pub fn already_member(name: &str, mount: &Path) -> Self {
        Self::new(
            Code::AlreadyMember,
            format!("this device is already a member of \"{name}\""),
            format!(
                "mount it with `atelier mount {}`; if it was removed: {JOIN_AGAIN}",
                mount.display()
            ),
        )
    }

    /// A peer or a daemon speaks another version.
    pub fn other_version(who: impl Display) -> Self {
        Self::new(
            Code::OtherVersion,
            format!("{who} speaks another version of the protocol"),
            "install the same version of Atelier on both sides",
        )
    }

    // Mounting

    /// The folder in which the mount point would stand is missing.
    pub fn mount_parent_missing(path: &Path) -> Self {
        let parent = path.parent().unwrap_or(path);
        Self::new(
            Code::MountParentMissing,
            format!("there is no folder {}", parent.display()),
            format!("make it first (`mkdir -p {}`)", parent.display()),
        )
    }

    /// The mount point has something in it.
    pub fn mount_not_empty(path: &Path) -> Self {
        Self::new(
            Code::MountNotEmpty,
            format!("{} is not empty", path.display()),
            "choose an empty or a new folder, then copy your files into the mounted drive",
        )
    }

    /// The drive, or something else, is mounted there.
    pub fn already_mounted(path: &Path) -> Self {
        Self::new(
            Code::AlreadyMounted,
            format!("{} is mounted already", path.display()),
            format!(
                "use it, or end it (`atelier unmount {0}`; what is not a drive: `umount {0}`)",
                path.display()
            ),
        )
    }

    /// The drive is mounted in another place.
    pub fn mounted_elsewhere(name: &str, at: &Path) -> Self {
        Self::new(
            Code::AlreadyMounted,
            format!("the drive \"{name}\" is mounted at {}", at.display()),
            format!("use it there, or unmount it first (`atelier unmount {}`)", at.display()),
        )
    }

    /// Something that is not ours is mounted there and does not answer.
    pub fn mount_point_hangs(path: &Path) -> Self {
        Self::new(
            Code::AlreadyMounted,
            format!("{} does not answer; a hanging mount is on it", path.display()),
            format!("detach it with `fusermount3 -uz {}` and try again", path.display()),
        )
    }

    /// The mount point is a file.
    pub fn mount_not_directory(path: &Path) -> Self {
        Self::new(
            Code::MountNotDirectory,
            format!("{} is not a folder", path.display()),
            "choose an empty or a new folder",
        )
    }

    /// `/dev/fuse` is missing or closed.
    pub fn no_fuse_device(why: impl Display) -> Self {
        Self::new(
            Code::NoFuseDevice,
            format!("cannot use /dev/fuse: {why}"),
            "load the kernel module (`modprobe fuse`); in a container, pass the device in",
        )
    }

    /// `fusermount3` is missing.
    pub fn no_fusermount() -> Self {
        Self::new(
            Code::NoFusermount,
            "fusermount3 was not found, and only root can mount without it",
            "install the package fuse3",
        )
    }

    /// The mount was refused.
    pub fn mount_failed(path: &Path, why: impl Display) -> Self {
        Self::new(
            Code::MountFailed,
            format!("cannot mount at {}: {why}", path.display()),
            "`atelier doctor` tells what this machine lacks",
        )
    }

    /// The mount point was that of a drive whose store is gone.
    pub fn store_gone(path: &Path, drive: impl Display) -> Self {
        Self::new(
            Code::StoreGone,
            format!("{} was the mount of drive {drive}, whose store is gone", path.display()),
            "bring the data directory back, or join the drive again with a ticket from a member",
        )
    }

    /// The mount point belongs to another drive.
    pub fn other_drive(path: &Path, name: &str) -> Self {
        Self::new(
            Code::OtherDrive,
            format!("{} is the mount of the drive \"{name}\"", path.display()),
            "choose another folder",
        )
    }

    /// A path that cannot be used.
    pub fn bad_path(path: &Path, why: impl Display) -> Self {
        Self::new(
            Code::BadPath,
            format!("cannot use the path {}: {why}", path.display()),
            "choose another path",
        )
    }

    /// Mount point and data directory stand inside each other.
    pub fn nested(path: &Path, data_dir: &Path) -> Self {
        Self::new(
            Code::Nested,
            format!(
                "{} and the data directory {} stand inside each other",
                path.display(),
                data_dir.display()
            ),
            "choose a mount point outside of the data directory (see --data-dir)",
        )
    }

    // Data directory

    /// Another process holds the store.
    pub fn store_in_use(dir: &Path) -> Self {
        Self::new(
            Code::StoreInUse,
            format!("the drive's store {} is in use by another process", dir.display()),
            "unmount the drive first, or give this device another --data-dir",
        )
    }

    /// The data directory does not belong to this user or is open to others in a way we cannot mend.
    pub fn data_dir_foreign(dir: &Path) -> Self {
        Self::new(
            Code::Unreadable,
            format!("the data directory {} belongs to another user", dir.display()),
            "give another one with --data-dir or ATELIER_DATA_DIR",
        )
    }

    /// No data directory could be found for this user.
    pub fn no_data_dir() -> Self {
        Self::new(
            Code::Unreadable,
            "this user has no home directory to keep the drives in",
            "give a directory with --data-dir or ATELIER_DATA_DIR",
        )
    }

    /// Written by a newer version.
    pub fn too_new(what: impl Display, found: u64, supported: u64) -> Self {
        Self::new(
            Code::TooNew,
            format!("{what} has format {found}, this version reads up to {supported}"),
            "install a newer version of Atelier; nothing was changed",
        )
    }

    /// The disk is full.
    pub fn disk_full(path: &Path) -> Self {
        Self::new(
            Code::DiskFull,
            format!("no space left on the disk of {}", path.display()),
            "free some space and try again; nothing that was accepted is lost",
        )
    }

    /// A file of ours does not say what it should.
    pub fn corrupt(path: &Path, why: impl Display) -> Self {
        Self::new(
            Code::Corrupt,
            format!("{} is damaged: {why}", path.display()),
            "bring it back from a backup, or join the drive again with a new ticket",
        )
    }

    // Keys

    /// The device key of an existing drive is not there.
    pub fn key_missing(place: impl Display) -> Self {
        Self::new(
            Code::KeyMissing,
            format!("the device key is missing: {place} does not have it"),
            "bring the key back (same user, same keyring, same data directory), or join again elsewhere",
        )
    }

    /// The device key is not the one the drive knows.
    pub fn key_wrong(whose: impl Display) -> Self {
        Self::new(
            Code::KeyWrong,
            format!("the device key is not the one that belongs to {whose}"),
            "bring back the key that belongs to this data directory; a new one is never made silently",
        )
    }

    /// The key store does not answer.
    pub fn key_store_unavailable(why: impl Display) -> Self {
        Self::new(
            Code::KeyStoreUnavailable,
            format!("the system's keyring does not answer: {why}"),
            "unlock it (log in to the desktop) and try again",
        )
    }

    /// The passphrase does not open the key file.
    pub fn passphrase_wrong() -> Self {
        Self::new(
            Code::PassphraseWrong,
            "the passphrase does not open the device key (or the key file was changed)",
            "try again; check ATELIER_PASSPHRASE if it is set",
        )
    }

    /// A passphrase is needed and nobody can be asked.
    pub fn passphrase_needed() -> Self {
        Self::new(
            Code::PassphraseNeeded,
            "the device key needs a passphrase, and there is no terminal to ask on",
            "set ATELIER_PASSPHRASE, or run this in a terminal",
        )
    }

    /// Another key store than the one in use was asked for.
    pub fn key_store_other(used: impl Display, asked: impl Display) -> Self {
        Self::new(
            Code::KeyStoreOther,
            format!("the device key of this data directory is kept in {used}, not in {asked}"),
            "leave --key-store out, or use another --data-dir",
        )
    }

    // Talking to the daemon

    /// The path is in no drive.
    pub fn not_in_drive(path: &Path) -> Self {
        Self::new(
            Code::NotInDrive,
            format!("{} is not in a drive of this data directory", path.display()),
            "give a path inside a mounted drive; `atelier status` lists the drives",
        )
    }

    /// The drive's daemon is not running.
    pub fn not_running(name: &str, mount: &Path) -> Self {
        Self::new(
            Code::NotRunning,
            format!("the drive \"{name}\" is not mounted"),
            format!("mount it with `atelier mount {}`", mount.display()),
        )
    }

    /// The daemon has as many conversations as it takes.
    pub fn busy() -> Self {
        Self::new(
            Code::Busy,
            "the drive's daemon has too many questions open",
            "try again in a moment",
        )
    }

    /// The daemon did not answer.
    pub fn no_answer(why: impl Display) -> Self {
        Self::new(
            Code::NoAnswer,
            format!("the drive's daemon does not answer: {why}"),
            "look at the drive's daemon.log; unmount and mount the drive again",
        )
    }

    /// Not done in time.
    pub fn timed_out(what: impl Display) -> Self {
        Self::new(
            Code::TimedOut,
            format!("{what} was not done in time"),
            "try again with a longer --timeout, or look at `atelier status`",
        )
    }

    /// The role or a lock does not allow it.
    pub fn refused(why: impl Display) -> Self {
        Self::new(Code::Refused, why.to_string(), "ask an owner of the drive")
    }

    /// This device is no member any more.
    pub fn removed() -> Self {
        Self::gone(Gone::Removed)
    }

    /// This device is no member any more, for that reason.
    pub fn gone(how: Gone) -> Self {
        let what = match how {
            Gone::Removed => "this device was removed from the drive",
            Gone::Forgotten => FORGOTTEN,
        };
        let remedy = format!("`atelier export PATH DIR` copies what is here; {JOIN_AGAIN}");
        Self::new(Code::Refused, what, remedy)
    }

    /// What this device saved could not be published.
    pub fn not_published(error: &vfs::SealError) -> Self {
        match error {
            vfs::SealError::ReadOnly { removed: true } => Self::removed(),
            vfs::SealError::ReadOnly { removed: false } => Self::new(
                Code::Refused,
                "something saved on this device cannot be published: it may only read the drive",
                "ask an owner for the editor role, or copy what you saved to a place outside the drive",
            ),
            error => Self::of(error),
        }
    }

    /// A device that may not write any more could never publish it.
    pub fn would_leave_behind(error: &vfs::SealError) -> Self {
        Self::new(
            Code::NotInSync,
            format!(
                "something saved on this device cannot be published, and never could be after that: {}",
                chain(error)
            ),
            "`atelier status PATH` says why; change, rename or remove it, or let another owner do this",
        )
    }

    /// The drive ended with something that exists only here.
    pub fn left_unpublished(log: &Path) -> Self {
        Self::new(
            Code::NotInSync,
            "unmounted, but something could not be published; it is kept and tried again at the next mount",
            format!("mount the drive: `atelier status PATH` says why, as does {}", log.display()),
        )
    }

    /// The drive ended with something that can never be published: this device is no member any more.
    pub fn left_for_good(mount: &Path) -> Self {
        Self::new(
            Code::NotInSync,
            "unmounted, but something saved here was never published and cannot be any more: this device was removed; it is kept",
            format!(
                "mount the drive (`atelier mount {}`) and copy what you saved to a place outside it",
                mount.display()
            ),
        )
    }

    /// Nothing was restored, and nothing changed.
    pub fn not_restored(error: &crate::drive::RestoreError) -> Self {
        use crate::drive::RestoreError as Why;
        let remedy = match error {
            Why::NothingThen { .. } | Why::NoVersion { .. } => {
                "`atelier history FILE` lists what there is, and .snapshots shows the drive at any time"
            }
            Why::Ambiguous { .. } => "give more digits of the id",
            Why::Folder { .. } => "give --at with a time",
            Why::FolderNow { .. } | Why::Virtual { .. } => {
                "give a destination in the same drive with --to"
            }
            Why::Gone { .. } => {
                "bring a device online that still has them, or restore another version (`atelier history FILE`)"
            }
            Why::Exists { .. } => "name a destination that does not exist yet",
            Why::NotFolder { .. } => {
                "move what stands there away, or give another destination with --to"
            }
            _ => return Self::of(error),
        };
        Self::new(Code::NotRestored, chain(error), remedy)
    }

    /// No snapshot was taken.
    pub fn no_snapshot(error: &crate::drive::SnapshotError) -> Self {
        use crate::drive::SnapshotError as Why;
        match error {
            Why::Exists(_) | Why::Name(_) | Why::Time(_) => {
                Self::new(Code::SnapshotName, error.to_string(), "choose another name")
            }
            Why::State(_) | Why::Write(_) => Self::of(error),
        }
    }

    /// It was asked to end before it was done.
    pub fn cancelled() -> Self {
        Self::new(
            Code::Cancelled,
            "the drive is being unmounted",
            "nothing is lost; try again later",
        )
    }

    /// One collection at a time.
    pub fn collecting_already() -> Self {
        Self::new(Code::Busy, "the drive is being collected already", "wait until that is done")
    }

    /// What belongs to a damaged content cannot be told.
    pub fn damaged(what: &dyn std::error::Error) -> Self {
        Self::new(
            Code::Corrupt,
            crate::report::chain(what),
            "run `atelier verify PATH --repair` while other members are online, then try again",
        )
    }

    /// The drive has nothing of this name.
    pub fn no_such_file(path: impl Display) -> Self {
        Self::new(
            Code::NoSuchFile,
            format!("the drive has never had a file {path}"),
            "check the name; upper and lower case matter",
        )
    }

    /// The drive has no such member.
    pub fn no_such_member(device: impl Display) -> Self {
        Self::new(
            Code::NoSuchMember,
            format!("the drive has no member {device}, or several that begin so"),
            "give the id that `atelier members PATH` shows",
        )
    }

    /// Nobody of that name or id was removed.
    pub fn no_such_removed_member(device: impl Display) -> Self {
        Self::new(
            Code::NoSuchMember,
            format!("no member {device} was removed from the drive or made a reader"),
            "give the id that `atelier status PATH` names",
        )
    }

    /// Of several devices of that name, or that begin so, something is kept aside.
    pub fn several_set_aside(text: &str, devices: &[impl Display]) -> Self {
        let ids: Vec<String> = devices.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if devices.len() > NAMED_MAX { " and others" } else { "" };
        Self::new(
            Code::NoSuchMember,
            format!("of several devices {text} something is kept aside: {}{more}", ids.join(", ")),
            "give one of these ids",
        )
    }

    /// Without an owner nobody could ever be admitted or removed again.
    pub fn last_owner() -> Self {
        Self::new(
            Code::Refused,
            "the drive would be without an owner",
            "make another member an owner first (`atelier members PATH role DEVICE owner`)",
        )
    }

    /// No move lost at that name.
    pub fn nothing_to_settle(path: &str) -> Self {
        Self::new(
            Code::BadPath,
            format!("no move of a folder lost at {path}"),
            "give a name that `atelier conflicts PATH` lists; copies are settled by removing or renaming them",
        )
    }

    /// The place to restore to is none.
    pub fn bad_target(path: &Path, why: impl Display) -> Self {
        Self::new(
            Code::BadDestination,
            format!("cannot restore to {}: {why}", path.display()),
            "give a name in the same drive that does not exist yet",
        )
    }

    /// The destination of an export cannot be used, or the export broke off.
    pub fn not_exported(error: &crate::drive::ExportError) -> Self {
        use crate::drive::ExportError as Why;
        match error {
            Why::NotEmpty(dest) => Self::bad_destination(dest, "it is not empty"),
            Why::NotFolder(dest) => Self::bad_destination(dest, "it is no folder"),
            Why::Io { path, verb, source } => Self::io(verb, path, source),
            Why::Read { .. } => Self::new(
                Code::Unreadable,
                chain(error),
                "bring a device online that has the file, and export again into an empty folder",
            ),
            Why::State(_) => Self::of(error),
        }
    }

    /// The folder an export was to go to cannot be used.
    pub fn bad_destination(path: &Path, why: impl Display) -> Self {
        Self::new(
            Code::BadDestination,
            format!("cannot export to {}: {why}", path.display()),
            "give an empty or a new folder outside of the drive",
        )
    }
}
