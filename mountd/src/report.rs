//! What is told when something fails: one line of cause, one line of what to do, an exit code.
//!
//! Leaves out: the texts of the known causes ([`causes`]) and which errors of the other crates lead
//! to which of them (the daemon's business).
//!
//! Invariants:
//! - a [`Code`] never changes its number: daemon and command line may be of different versions;
//! - an unknown number from a newer daemon stays an error, it is never taken for success;
//! - cause and remedy are one line each, whatever they were made of.

pub mod causes;

use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// How the process ends (DESIGN 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// It failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Not in sync, or not in time.
    NotInSync,
    /// Refused: a lock or a role stands in the way.
    Refused,
}

impl Exit {
    /// The number the shell sees.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotInSync => 3,
            Self::Refused => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $exit:ident,)*) => {
        /// What went wrong, as a number for the wire and for scripts.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A number this version does not know.
            Unknown(u16),
        }

        impl Code {
            /// Every code this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// How a process that fails with this code ends.
            pub const fn exit(self) -> Exit {
                match self {
                    $(Self::$name => Exit::$exit,)*
                    Self::Unknown(_) => Exit::Failed,
                }
            }
        }

        impl From<u16> for Code {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<Code> for u16 {
            fn from(code: Code) -> Self {
                match code {
                    $(Code::$name => $number,)*
                    Code::Unknown(number) => number,
                }
            }
        }
    };
}

codes! {
    /// An error without a name of its own.
    Internal = 1 => Failed,
    /// The command line makes no sense.
    Usage = 2 => Usage,
    /// Not done in the time allowed.
    TimedOut = 3 => NotInSync,
    /// The other members do not have everything yet.
    NotInSync = 4 => NotInSync,
    /// The role or a lock does not allow it.
    Refused = 5 => Refused,
    /// Stopped by the user.
    Cancelled = 6 => Failed,
    /// Nobody has locked the file.
    NotLocked = 7 => Failed,

    /// The ticket is no ticket.
    TicketMalformed = 20 => Failed,
    /// The ticket's time is over.
    TicketExpired = 21 => Failed,
    /// The ticket has been used as often as it may be.
    TicketUsed = 22 => Failed,
    /// The ticket is for another drive than the one that answered, or was not made by it.
    TicketForeign = 23 => Failed,
    /// None of the devices named in the ticket answered.
    NobodyAnswered = 24 => Failed,
    /// This device is a member already.
    AlreadyMember = 25 => Failed,
    /// The other side speaks another version.
    OtherVersion = 26 => Failed,

    /// The folder the mount point is to stand in does not exist.
    MountParentMissing = 40 => Failed,
    /// The mount point has something in it.
    MountNotEmpty = 41 => Failed,
    /// The mount point is in use.
    AlreadyMounted = 42 => Failed,
    /// The mount point is not a directory.
    MountNotDirectory = 43 => Failed,
    /// The kernel's FUSE device is missing or closed to us.
    NoFuseDevice = 44 => Failed,
    /// `fusermount3` is missing and we are not root.
    NoFusermount = 45 => Failed,
    /// The mount failed for another reason.
    MountFailed = 46 => Failed,
    /// The mount point was that of a drive whose store is gone.
    StoreGone = 47 => Failed,
    /// The mount point belongs to another drive.
    OtherDrive = 48 => Failed,
    /// The path cannot be used.
    BadPath = 49 => Failed,
    /// The mount point and the data directory stand inside each other.
    Nested = 50 => Failed,

    /// Another process holds the store.
    StoreInUse = 60 => Failed,
    /// The data directory cannot be read or written.
    Unreadable = 61 => Failed,
    /// Written by a newer version.
    TooNew = 62 => Failed,
    /// The disk is full.
    DiskFull = 63 => Failed,
    /// A file of ours does not say what it should.
    Corrupt = 64 => Failed,

    /// The device key of an existing drive is not there.
    KeyMissing = 80 => Failed,
    /// The device key is not the one the drive knows.
    KeyWrong = 81 => Failed,
    /// The key store does not answer.
    KeyStoreUnavailable = 82 => Failed,
    /// The passphrase does not open the key file.
    PassphraseWrong = 83 => Failed,
    /// A passphrase is needed and nobody can be asked.
    PassphraseNeeded = 84 => Failed,
    /// The key is kept in another store than the one asked for.
    KeyStoreOther = 85 => Failed,

    /// The path is in no drive.
    NotInDrive = 100 => Failed,
    /// The drive's daemon is not running.
    NotRunning = 101 => Failed,
    /// The daemon has too much to do to answer.
    Busy = 102 => Failed,
    /// The daemon does not answer.
    NoAnswer = 103 => Failed,
    /// The daemon died while it started.
    DiedAtStart = 104 => Failed,
    /// The drive has nothing of this name.
    NoSuchFile = 105 => Failed,
    /// The drive has no such member.
    NoSuchMember = 106 => Failed,
    /// The place to export to cannot take the files.
    BadDestination = 107 => Failed,
    /// What was checked is damaged.
    Damaged = 108 => Failed,
    /// The demonstration did not show what it claims.
    DemoFailed = 109 => Failed,
    /// The drive accepts no more changes.
    ReadOnly = 110 => Refused,

    /// There is nothing to restore, or no place for it.
    NotRestored = 120 => Failed,
    /// No snapshot can have this name.
    SnapshotName = 121 => Failed,
}

/// One failure as the user sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The number for the wire.
    pub code: Code,
    /// One line: what went wrong.
    pub cause: String,
    /// One line: what to do about it.
    pub remedy: String,
}

impl Failure {
    /// A failure of this code; newlines in the texts become spaces.
    pub fn new(code: Code, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, cause: one_line(cause.into()), remedy: one_line(remedy.into()) }
    }

    /// How the process ends.
    pub const fn exit(&self) -> Exit {
        self.code.exit()
    }

    /// The two lines as they are printed.
    pub fn lines(&self) -> String {
        if self.remedy.is_empty() {
            format!("error: {}\n", self.cause)
        } else {
            format!("error: {}\n  try: {}\n", self.cause, self.remedy)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Failure {}

/// The texts of an error and everything it comes from, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Some errors repeat their source in their own text; once is enough.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    one_line(text)
}

/// Control characters would let a name from elsewhere write over the terminal.
fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_numbers_over_the_wire() {
        for &code in Code::ALL {
            let number = u16::from(code);
            assert_eq!(Code::from(number), code);
            assert_eq!(serde_json::to_string(&code).unwrap(), number.to_string());
        }
        let mut numbers: Vec<u16> = Code::ALL.iter().map(|&c| c.into()).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "two codes share a number");
        // A few numbers by hand: a table that moved as a whole would pass the loop above.
        assert_eq!(u16::from(Code::TicketExpired), 21);
        assert_eq!(u16::from(Code::AlreadyMounted), 42);
        assert_eq!(u16::from(Code::StoreInUse), 60);
        assert_eq!(u16::from(Code::KeyMissing), 80);
        assert_eq!(u16::from(Code::NotRunning), 101);
    }

    #[test]
    fn an_unknown_code_stays_a_failure() {
        let code: Code = serde_json::from_str("65000").unwrap();
        assert_eq!(code, Code::Unknown(65_000));
        assert_eq!(code.exit(), Exit::Failed);
        assert_eq!(u16::from(code), 65_000);
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        assert_eq!(Code::Internal.exit().number(), 1);
        assert_eq!(Code::Usage.exit().number(), 2);
        assert_eq!(Code::TimedOut.exit().number(), 3);
        assert_eq!(Code::NotInSync.exit().number(), 3);
        assert_eq!(Code::Refused.exit().number(), 4);
        assert_eq!(Exit::Ok.number(), 0);
    }

    #[test]
    fn a_failure_is_two_lines_whatever_is_in_it() {
        let failure = Failure::new(Code::Internal, "name \"a\nb\x1b[2J\"", "look\r\nelsewhere");
        assert_eq!(failure.lines().lines().count(), 2);
        assert!(!failure.lines().contains('\x1b'));
    }

    #[test]
    fn what_would_be_left_behind_ends_as_an_unmount_with_it_does() {
        let failure = Failure::would_leave_behind(&vfs::SealError::Full);
        assert_eq!(failure.exit(), Exit::NotInSync);
        assert!(failure.cause.contains("the disk of the store is full"));
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the pack")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("the disk said no"));
        assert_eq!(chain(&error), "cannot open the pack: the disk said no");
    }
}
