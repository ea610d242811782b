//! Requests and answers, and the JSON of both.
//!
//! The reports' field names are the keys of `--json` (DESIGN 9): keys are added, never renamed.
//! Leaves out how they travel ([`super::frame`]) and how they are shown to people.
//!
//! Invariants: times are RFC 3339 in UTC, sizes are bytes, ids are lower-case hex.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// A time in milliseconds since 1970 as the reports give it.
pub fn rfc3339(wall_ms: u64) -> String {
    let ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    time.to_string()
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Invites, removes, changes roles; and edits.
    Owner,
    /// Reads and writes.
    Editor,
    /// Reads.
    Reader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Editor => "editor",
            Self::Reader => "reader",
        })
    }
}

/// What the daemon can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Everything `atelier status` shows.
    Status,
    /// A ticket for others to join with.
    Invite {
        /// What the joining device may do.
        role: Role,
        /// How long the ticket is good for, seconds.
        expires_s: u64,
        /// How many devices may use it.
        uses: u32,
    },
    /// Seal, and wait until all connected members have everything.
    Sync {
        /// How long to wait, milliseconds.
        timeout_ms: u64,
    },
    /// All versions of a file.
    History {
        /// Relative to the mount's root, `/` between the names.
        path: String,
    },
    /// Bring back what was; exactly one of `version` and `at_ms` is given.
    Restore {
        /// Relative to the mount's root, `/` between the names; empty for the whole drive.
        path: String,
        /// The beginning of a version's id.
        version: Option<String>,
        /// The last millisecond of a time.
        at_ms: Option<u64>,
        /// Where to put it, when not to its own place; relative to the mount's root.
        dest: Option<String>,
    },
    /// Name the drive as it is now.
    Snapshot {
        /// The name.
        name: String,
    },
    /// The named snapshots.
    Snapshots,
    /// Every name with several versions.
    Conflicts,
    /// Who the members are.
    Members,
    /// Put a member out.
    MemberRemove {
        /// Its id, the beginning of it, or its name.
        device: String,
    },
    /// Give a member another role.
    MemberRole {
        /// Its id, the beginning of it, or its name.
        device: String,
        /// The new role.
        role: Role,
    },
    /// Let count what a removed member wrote that its removal had not seen.
    MemberTakeBack {
        /// Its id, the beginning of it, or its name.
        device: String,
        /// Only tell what there is.
        dry_run: bool,
    },
    /// Moves of folders that lost are dealt with.
    Settle {
        /// The name they are listed under, relative to the mount's root.
        path: String,
    },
    /// Check every chunk and every link of the journal.
    Verify {
        /// Fetch again what is damaged.
        repair: bool,
    },
    /// Remove what no version needs that the policy keeps.
    Gc {
        /// Only count it, under the policy as it would be.
        dry_run: bool,
        /// Sets how long all versions are kept, seconds.
        keep_all_s: Option<u64>,
        /// Sets how long the last version of each day is kept, seconds.
        keep_daily_s: Option<u64>,
    },
    /// A plain copy of the tree.
    Export {
        /// An empty or new directory, absolute.
        dest: PathBuf,
    },
    /// Who has locked or opened what.
    Locks,
    /// Check a file out.
    Lock {
        /// Relative to the mount's root, `/` between the names.
        path: String,
    },
    /// Give a checkout back, or end somebody else's lock.
    Unlock {
        /// Relative to the mount's root, `/` between the names.
        path: String,
        /// End it whoever holds it.
        break_it: bool,
    },
    /// Set what locks mean in the drive.
    LockPolicy {
        /// From now on.
        policy: LockPolicy,
    },
    /// What happened, as it happens.
    Events {
        /// After this one; 0 for all that are kept.
        after: u64,
        /// How long to wait for something to happen, milliseconds, at most 20,000.
        wait_ms: u64,
    },
    /// Seal, unmount and end.
    Unmount,
    /// Are you there?
    Ping,
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Invite`]: the ticket's one line.
    Ticket(String),
    /// To [`Request::Sync`].
    Synced(SyncReport),
    /// To [`Request::History`].
    History(HistoryReport),
    /// To [`Request::Restore`].
    Restored(RestoreReport),
    /// To [`Request::Snapshots`], oldest first.
    Snapshots(Vec<SnapshotRow>),
    /// To [`Request::Conflicts`].
    Conflicts(Vec<ConflictReport>),
    /// To [`Request::Members`].
    Members(Vec<MemberRow>),
    /// To [`Request::MemberTakeBack`], oldest first.
    Aside(Vec<AsideRow>),
    /// To [`Request::Verify`].
    Verified(VerifyReport),
    /// To [`Request::Gc`].
    Collected(GcReport),
    /// To [`Request::Export`].
    Exported(ExportReport),
    /// To [`Request::Locks`].
    Locks(Vec<LockRow>),
    /// To [`Request::Events`].
    Events(EventsReport),
    /// Done, nothing to tell.
    Done,
}

/// A drive by name and id.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DriveRow {
    /// What its members call it.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// A device by name and id.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Its name as admitted.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// One member of the drive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its name as admitted.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// Connected now. This device is online to itself.
    pub online: bool,
    /// Has everything this device has, as far as is known.
    pub in_sync: bool,
    /// When it was last connected.
    pub last_seen: Option<String>,
}

/// One change that does not count because its author was removed; `atelier members PATH take-back DEVICE --json` is a
/// list of these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AsideRow {
    /// The name it was written to, relative to the mount.
    pub path: String,
    /// Its version's id, for `atelier restore --version`.
    pub version: String,
    /// When it was saved, by its author's clock.
    pub time: String,
    /// `file`, `link`, `folder` or `removal`.
    pub kind: String,
    /// A file's size.
    pub size: u64,
}

/// One lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockRow {
    /// The locked file, relative to the mount.
    pub path: String,
    /// Who holds it.
    pub holder: String,
    /// On which device.
    pub device: String,
    /// Since when.
    pub since: String,
    /// `session`, `checkout` or `presence`.
    pub kind: String,
    /// Members seen in the last 30 days that could not be asked.
    pub unreachable: u32,
    /// Held by this device.
    #[serde(default)]
    pub mine: bool,
}

/// What locks mean in a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LockPolicy {
    /// Who does not hold a lock is refused to write.
    Enforced,
    /// Locks are told and refuse nobody.
    Advisory,
}

/// Something the user should be told while it happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventRow {
    /// Counts up from 1 since the daemon's start.
    pub number: u64,
    /// When.
    pub time: String,
    /// `stale_save`, `refused`, `also_open`, `lock_lost`, `lock_free` or `checkout_broken`.
    pub kind: String,
    /// The file, relative to the mount; a folder's ends in `/`.
    pub path: String,
    /// The other member, if there is one.
    pub who: String,
    /// All of it in one line.
    pub text: String,
}

/// Events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EventsReport {
    /// The newest event's number: what to ask after next time.
    pub next: u64,
    /// Some of those asked for are not kept any more, or the daemon was started anew.
    pub lost: bool,
    /// Oldest first.
    pub events: Vec<EventRow>,
}

/// Something the user should know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// What.
    pub what: String,
    /// Since when.
    pub since: String,
    /// What to do about it.
    pub remedy: String,
}

/// `atelier status --json`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// The drive.
    pub drive: DriveRow,
    /// Where it is mounted.
    pub path: String,
    /// This device.
    pub device: DeviceRow,
    /// Everybody, this device included.
    pub members: Vec<MemberRow>,
    /// What this device has, all connected members have, and the other way round.
    pub in_sync: bool,
    /// Everything exists on another device too.
    pub safe_to_close: bool,
    /// Bytes of content that others lack.
    pub to_send_bytes: u64,
    /// Bytes of content that this device lacks.
    pub to_receive_bytes: u64,
    /// Changes not sealed yet.
    pub drafts: u64,
    /// Files whose newest version's bytes are not here yet.
    pub arriving: u64,
    /// Who has locked what.
    pub locks: Vec<LockRow>,
    /// How many names have several versions.
    pub conflicts: u64,
    /// Equal on devices that show the same.
    pub tree_hash: String,
    /// Addresses at which this device can be reached.
    pub listen: Vec<String>,
    /// What the user should know.
    pub notices: Vec<Notice>,
    /// Bytes of all chunks in the store, of the versions of today and of those before.
    #[serde(default)]
    pub store_bytes: u64,
    /// How long versions are kept after they were replaced.
    #[serde(default)]
    pub policy: PolicyRow,
    /// The last collection on this device.
    #[serde(default)]
    pub last_gc: Option<GcRow>,
    /// What old versions took when that was last counted, by a collection or a dry run.
    #[serde(default)]
    pub history: Option<HistoryCost>,
}

/// How long versions are kept after they were replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PolicyRow {
    /// All of them, seconds.
    pub keep_all_s: u64,
    /// The last of each UTC day, seconds.
    pub keep_daily_s: u64,
}

/// A collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GcRow {
    /// When.
    pub time: String,
    /// Bytes it gave back.
    pub freed_bytes: u64,
}

/// What old versions take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryCost {
    /// When that was counted.
    pub time: String,
    /// Bytes of the store that only old versions need.
    pub bytes: u64,
}

/// `atelier gc --json`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GcReport {
    /// Nothing was changed; this is what would be.
    pub dry_run: bool,
    /// The policy it went by.
    pub policy: PolicyRow,
    /// Bytes of all chunks in the store afterwards.
    pub store_bytes: u64,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// Bytes found that no version needs; what is thinly spread over packs stays.
    pub unneeded_bytes: u64,
    /// Chunks in packs that went, moved ones included.
    pub chunks: u64,
    /// Packs that went.
    pub packs: u64,
    /// Packs that stay although little of them is needed, because that is damaged.
    pub damaged_packs: u64,
    /// Bytes the old versions that stay take beyond what the drive shows now.
    pub history_bytes: u64,
    /// Versions of files looked at.
    pub versions: u64,
    /// Of these, those whose bytes need not stay.
    pub versions_let_go: u64,
    /// Those that only stay because no other device is known to have them.
    pub versions_alone: u64,
    /// `full` or `asked` when it ended before it was done.
    pub stopped: Option<String>,
}

/// `atelier sync --json`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SyncReport {
    /// Whether all connected members have everything now.
    pub in_sync: bool,
    /// How many other members are connected.
    pub online: u32,
    /// Names of those that lack something.
    pub waiting_for: Vec<String>,
    /// Bytes of content that others still lack.
    pub to_send_bytes: u64,
    /// Bytes of content that this device still lacks.
    pub to_receive_bytes: u64,
}

/// One version of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Its id.
    pub version: String,
    /// When it was saved, by its author's clock.
    pub time: String,
    /// Who saved it.
    pub author: String,
    /// On which device.
    pub device: String,
    /// Its size.
    pub size: u64,
    /// Whether it is what the plain name shows now.
    pub official: bool,
    /// Whether its bytes are not here, and no device need have them any more.
    #[serde(default)]
    pub gone: bool,
    /// Whether it does not count: its author was removed or had no right to it.
    #[serde(default)]
    pub aside: bool,
    /// Why its time is not what it seems.
    #[serde(default)]
    pub odd: Option<String>,
}

/// `atelier history --json`, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HistoryReport {
    /// All versions.
    pub versions: Vec<HistoryRow>,
}

/// `atelier restore --json`: what was written.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Files and links with an old content.
    pub files: u64,
    /// Folders that were made.
    pub dirs: u64,
    /// Names that were removed because they came later.
    pub removed: u64,
    /// Folders that got old attributes.
    pub attributes: u64,
}

impl RestoreReport {
    /// Everything was like that already.
    pub const fn is_nothing(&self) -> bool {
        self.files == 0 && self.dirs == 0 && self.removed == 0 && self.attributes == 0
    }
}

/// One named snapshot; `atelier snapshots --json` is a list of these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Its name.
    pub name: String,
    /// When it was taken, by its author's clock.
    pub time: String,
}

/// One copy that stands beside the official version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictCopy {
    /// The name it is shown under, relative to the mount.
    pub path: String,
    /// Who saved it.
    pub author: String,
    /// Its version's id.
    pub version: String,
    /// When it was saved, by its author's clock.
    pub time: String,
    /// False for a folder that is not there because another move of it was first.
    #[serde(default = "shown")]
    pub moved: bool,
}

const fn shown() -> bool {
    true
}

/// One name with several versions; `atelier conflicts --json` is a list of these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictReport {
    /// The name, relative to the mount.
    pub path: String,
    /// The versions that are not official.
    pub copies: Vec<ConflictCopy>,
}

/// `atelier verify --json`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Chunks looked at.
    pub chunks: u64,
    /// Chunks whose bytes are not what their name says, or which are missing.
    pub bad: u64,
    /// Of these, how many are good again.
    pub repaired: u64,
    /// Journal entries looked at.
    pub journal_entries: u64,
    /// Entries whose signature or links do not hold.
    pub journal_bad: u64,
}

impl VerifyReport {
    /// Nothing is damaged, or everything that was is good again.
    pub const fn is_sound(&self) -> bool {
        self.bad <= self.repaired && self.journal_bad == 0
    }
}

/// `atelier export --json`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ExportReport {
    /// Files written.
    pub files: u64,
    /// Directories made.
    pub dirs: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// What a progress counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: chunks, files, entries.
    Items,
}

/// How far a long request has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, a word or two.
    pub stage: String,
    /// How much is done.
    pub done: u64,
    /// How much there is, if that is known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
}

/// What the server says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "say", content = "value", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The first word: the version it speaks.
    Hello(Hello),
    /// Goes on.
    Progress(Progress),
    /// The end, well.
    Answer(Response),
    /// The end, not well.
    Failed(Failure),
}

/// The first word of both sides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`super::PROTOCOL`] of the speaker.
    pub(crate) protocol: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys scripts rely on, exactly.
    #[test]
    fn status_has_exactly_the_keys_of_the_contract() {
        let report = StatusReport {
            members: vec![MemberRow {
                name: "anna".into(),
                id: "00ff".into(),
                role: Role::Editor,
                online: true,
                in_sync: true,
                last_seen: None,
            }],
            locks: vec![LockRow {
                path: "a".into(),
                holder: "anna".into(),
                device: "00ff".into(),
                since: rfc3339(0),
                kind: "session".into(),
                unreachable: 0,
                mine: false,
            }],
            notices: vec![Notice { what: "w".into(), since: rfc3339(0), remedy: "r".into() }],
            ..StatusReport::default()
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            keys(&json),
            "arriving conflicts device drafts drive history in_sync last_gc listen locks members notices path \
             policy safe_to_close store_bytes to_receive_bytes to_send_bytes tree_hash"
        );
        assert_eq!(keys(&json["drive"]), "id name");
        assert_eq!(keys(&json["device"]), "id name");
        assert_eq!(keys(&json["members"][0]), "id in_sync last_seen name online role");
        assert_eq!(keys(&json["locks"][0]), "device holder kind mine path since unreachable");
        assert_eq!(keys(&json["notices"][0]), "remedy since what");
        assert_eq!(json["members"][0]["role"], "editor");
    }

    #[test]
    fn the_other_answers_have_exactly_the_keys_of_the_contract() {
        let row = HistoryRow {
            version: "v".into(),
            time: rfc3339(0),
            author: "a".into(),
            device: "d".into(),
            size: 1,
            official: true,
            gone: false,
            aside: false,
            odd: None,
        };
        let history = serde_json::to_value(HistoryReport { versions: vec![row] }).unwrap();
        assert_eq!(keys(&history), "versions");
        assert_eq!(
            keys(&history["versions"][0]),
            "aside author device gone odd official size time version"
        );
        let copy = ConflictCopy {
            path: "p".into(),
            author: "a".into(),
            version: "v".into(),
            time: rfc3339(0),
            moved: true,
        };
        let conflict = ConflictReport { path: "p".into(), copies: vec![copy] };
        let conflicts = serde_json::to_value([conflict]).unwrap();
        assert_eq!(keys(&conflicts[0]), "copies path");
        assert_eq!(keys(&conflicts[0]["copies"][0]), "author moved path time version");
        let restored = serde_json::to_value(RestoreReport::default()).unwrap();
        assert_eq!(keys(&restored), "attributes dirs files removed");
        let snapshot = SnapshotRow { name: "n".into(), time: rfc3339(0) };
        assert_eq!(keys(&serde_json::to_value(snapshot).unwrap()), "name time");
        let verify = serde_json::to_value(VerifyReport::default()).unwrap();
        assert_eq!(keys(&verify), "bad chunks journal_bad journal_entries repaired");
    }

    fn keys(value: &serde_json::Value) -> String {
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys.join(" ")
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_795_449_845_250), "2026-11-23T16:04:05.25Z");
        assert!(rfc3339(u64::MAX).ends_with('Z'), "a clock gone mad does not panic");
    }

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let requests = [
            Request::Status,
            Request::Invite { role: Role::Reader, expires_s: 60, uses: 2 },
            Request::Sync { timeout_ms: 5 },
            Request::History { path: "ordner/Ä b.blend".into() },
            Request::Restore {
                path: "a".into(),
                version: None,
                at_ms: Some(5),
                dest: Some("b".into()),
            },
            Request::Snapshot { name: "n".into() },
            Request::Snapshots,
            Request::Conflicts,
            Request::Members,
            Request::MemberRemove { device: "ab".into() },
            Request::MemberTakeBack { device: "ab".into(), dry_run: true },
            Request::Settle { path: "ordner".into() },
            Request::MemberRole { device: "ab".into(), role: Role::Owner },
            Request::Verify { repair: true },
            Request::Gc { dry_run: true, keep_all_s: Some(1), keep_daily_s: None },
            Request::Export { dest: "/tmp/x".into() },
            Request::Locks,
            Request::Lock { path: "a".into() },
            Request::Unlock { path: "a".into(), break_it: true },
            Request::LockPolicy { policy: LockPolicy::Advisory },
            Request::Events { after: 1, wait_ms: 2 },
            Request::Unmount,
            Request::Ping,
        ];
        for request in requests {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        let replies = [
            Reply::Hello(Hello { protocol: 1 }),
            Reply::Progress(Progress {
                stage: "s".into(),
                done: 1,
                total: None,
                unit: Unit::Bytes,
            }),
            Reply::Answer(Response::Done),
            Reply::Answer(Response::Ticket("atelier1x".into())),
            Reply::Answer(Response::Status(Box::default())),
            Reply::Answer(Response::Conflicts(Vec::new())),
            Reply::Failed(Failure::busy()),
        ];
        for reply in replies {
            let text = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
        }
    }
}
