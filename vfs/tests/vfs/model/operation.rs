//! What happens to a drive: calls of programs, time, crashes, another member's work.
//!
//! Names are few, so that operations meet, and awkward: spellings of one name, names of temporary files, a file's name
//! taken by a directory. Files are opened in numbered slots; an operation on an empty one does nothing, so that a
//! sequence stays a sequence when the runner leaves some of it out.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;
use vfs::fs::RenameMode;

use super::pair::When;

/// Directories operations are done in, as far as they exist.
static DIRS: [&str; 5] = ["", "d", "e", "d/e", "e/d"];
/// Names in them.
static NAMES: [&str; 12] = [
    "a",
    "b",
    "doc.blend",
    "doc.blend@",
    "d",
    "e",
    "doc.blend1",
    "~$doc",
    "A",
    "\u{e9}",
    "e\u{301}",
    "x.tmp",
];
/// How many files a program has open.
const SLOTS: u8 = 4;

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

/// A name in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub dir: &'static str,
    pub name: &'static str,
}

impl Operation {
    /// Whether it can be done while a publication is stopped in its middle, as far as can be told from here.
    pub fn needs_no_publishing(&self) -> bool {
        !matches!(
            self,
            Self::Rename { mode: RenameMode::Exchange, .. }
                | Self::Seal
                | Self::Publish { .. }
                | Self::Pass { .. }
                | Self::Settle
                | Self::SealAll
                | Self::Remount
                | Self::Kill
                | Self::PowerLoss { .. }
                | Self::Their(_)
                | Self::Sync
        )
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", [self.dir, self.name].join("/"))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Both,
    /// Both, and what is there is thrown away.
    Anew,
}

/// What another member does.
#[derive(Clone, Copy, Debug)]
pub enum Theirs {
    Save(Place),
    Chmod(Place),
    Remove(Place),
    Rename(Place, Place),
    Mkdir(Place),
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Create {
        slot: u8,
        at: Place,
        exclusive: bool,
    },
    Open {
        slot: u8,
        at: Place,
        access: Access,
    },
    Write {
        slot: u8,
        at: Offset,
        len: u16,
        fill: u8,
    },
    Read {
        slot: u8,
        at: Offset,
        len: u16,
    },
    Truncate {
        slot: u8,
        at: Offset,
    },
    SetLen {
        at: Place,
        len: u16,
    },
    Reserve {
        slot: u8,
        at: Offset,
        len: u16,
        keep: bool,
    },
    Zero {
        slot: u8,
        at: Offset,
        len: u16,
        keep: bool,
    },
    Punch {
        slot: u8,
        at: Offset,
        len: u16,
    },
    Seek {
        slot: u8,
        at: Offset,
        data: bool,
    },
    Flush {
        slot: u8,
    },
    Release {
        slot: u8,
    },
    Fsync {
        slot: u8,
    },
    Fsyncdir,
    Rename {
        from: Place,
        to: Place,
        mode: RenameMode,
    },
    Unlink {
        at: Place,
    },
    Mkdir {
        at: Place,
    },
    Rmdir {
        at: Place,
    },
    Symlink {
        at: Place,
        len: u8,
    },
    Chmod {
        at: Place,
        mode: u32,
    },
    SetTime {
        at: Place,
        secs: u32,
    },
    SetXattr {
        at: Place,
        name: u8,
        value: u8,
        mode: u8,
    },
    RemoveXattr {
        at: Place,
        name: u8,
    },
    OpenDir {
        dir: &'static str,
    },
    ReadDir {
        count: usize,
    },
    Forget,
    Seal,
    /// A publication begins and goes on when an operation comes that it is in the way of.
    Publish {
        stop: When,
    },
    Pass {
        ms: u64,
    },
    Settle,
    SealAll,
    Remount,
    Kill,
    PowerLoss {
        kept: u8,
    },
    Their(Theirs),
    Sync,
}

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub enum Offset {
    At(u16),
    /// Where the file ends, and so much more.
    End(u16),
}

impl Offset {
    pub fn of(self, len: usize) -> u64 {
        match self {
            Self::At(at) => u64::from(at),
            Self::End(gap) => len as u64 + u64::from(gap),
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    let dirs = prop_oneof![5 => Just(DIRS[0]), 4 => select(&DIRS[..])];
    let names = prop_oneof![3 => select(&NAMES[..4]), 2 => select(&NAMES[..])];
    (dirs, names).prop_map(|(dir, name)| Place { dir, name })
}

fn offset() -> impl Strategy<Value = Offset> {
    prop_oneof![
        2 => Just(Offset::At(0)),
        3 => Just(Offset::End(0)),
        2 => (0..50u16).prop_map(Offset::At),
        2 => (0..20_000u16).prop_map(Offset::At),
        1 => (0..10_000u16).prop_map(Offset::End),
    ]
}

fn len() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 1..40u16, 2 => 1..9_000u16, 1 => 1..40_000u16]
}

fn slot() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0), 2 => Just(1), 1 => 0..SLOTS]
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![
        6 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
    ]
}

fn on_bytes() -> BoxedStrategy<Operation> {
    let at = offset;
    prop_oneof![
        10 => (slot(), at(), len(), any::<u8>())
            .prop_map(|(slot, at, len, fill)| Operation::Write { slot, at, len, fill }),
        2 => (slot(), at(), len()).prop_map(|(slot, at, len)| Operation::Read { slot, at, len }),
        3 => (slot(), at()).prop_map(|(slot, at)| Operation::Truncate { slot, at }),
        1 => (place(), 0..9_000u16).prop_map(|(at, len)| Operation::SetLen { at, len }),
        1 => (slot(), at(), len(), any::<bool>())
            .prop_map(|(slot, at, len, keep)| Operation::Reserve { slot, at, len, keep }),
        1 => (slot(), at(), len(), any::<bool>())
            .prop_map(|(slot, at, len, keep)| Operation::Zero { slot, at, len, keep }),
        2 => (slot(), at(), len()).prop_map(|(slot, at, len)| Operation::Punch { slot, at, len }),
        1 => (slot(), at(), any::<bool>()).prop_map(|(slot, at, data)| Operation::Seek { slot, at, data }),
        4 => slot().prop_map(|slot| Operation::Flush { slot }),
        5 => slot().prop_map(|slot| Operation::Release { slot }),
        4 => slot().prop_map(|slot| Operation::Fsync { slot }),
    ]
    .boxed()
}

fn on_names() -> BoxedStrategy<Operation> {
    let access =
        select(vec![Access::Both, Access::Both, Access::Write, Access::Read, Access::Anew]);
    prop_oneof![
        8 => (slot(), place(), prop::bool::weighted(0.2))
            .prop_map(|(slot, at, exclusive)| Operation::Create { slot, at, exclusive }),
        6 => (slot(), place(), access).prop_map(|(slot, at, access)| Operation::Open { slot, at, access }),
        9 => (place(), place(), rename_mode())
            .prop_map(|(from, to, mode)| Operation::Rename { from, to, mode }),
        4 => place().prop_map(|at| Operation::Unlink { at }),
        3 => place().prop_map(|at| Operation::Mkdir { at }),
        2 => select(vec!["d", "e"]).prop_map(|name| Operation::Mkdir { at: Place { dir: "", name } }),
        2 => place().prop_map(|at| Operation::Rmdir { at }),
        1 => (place(), 1..200u8).prop_map(|(at, len)| Operation::Symlink { at, len }),
        1 => (place(), select(vec![0o644, 0o600, 0o755, 0o444]))
            .prop_map(|(at, mode)| Operation::Chmod { at, mode }),
        1 => (place(), 1..2_000_000_000u32).prop_map(|(at, secs)| Operation::SetTime { at, secs }),
        1 => (place(), 0..2u8, any::<u8>(), 0..3u8)
            .prop_map(|(at, name, value, mode)| Operation::SetXattr { at, name, value, mode }),
        1 => (place(), 0..2u8).prop_map(|(at, name)| Operation::RemoveXattr { at, name }),
        1 => select(&DIRS[..]).prop_map(|dir| Operation::OpenDir { dir }),
        1 => (1..4usize).prop_map(|count| Operation::ReadDir { count }),
    ]
    .boxed()
}

fn on_the_whole() -> BoxedStrategy<Operation> {
    prop_oneof![
        2 => Just(Operation::Seal),
        5 => select(vec![When::Before, When::After]).prop_map(|stop| Operation::Publish { stop }),
        6 => select(vec![10, 30, 60, 200, 1_000, 2_100, 31_000]).prop_map(|ms| Operation::Pass { ms }),
        1 => Just(Operation::Settle),
        1 => Just(Operation::SealAll),
        2 => Just(Operation::Fsyncdir),
        1 => Just(Operation::Forget),
        1 => Just(Operation::Remount),
        2 => Just(Operation::Kill),
        1 => any::<u8>().prop_map(|kept| Operation::PowerLoss { kept }),
    ]
    .boxed()
}

fn of_others() -> BoxedStrategy<Operation> {
    let theirs = prop_oneof![
        6 => place().prop_map(Theirs::Save),
        1 => place().prop_map(Theirs::Chmod),
        2 => place().prop_map(Theirs::Remove),
        3 => (place(), place()).prop_map(|(from, to)| Theirs::Rename(from, to)),
        1 => place().prop_map(Theirs::Mkdir),
    ];
    prop_oneof![3 => theirs.prop_map(Operation::Their), 2 => Just(Operation::Sync)].boxed()
}

/// Whether another member works on the drive too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Alone,
    Together,
}

/// Anything that may happen next.
pub fn operation(company: Company) -> BoxedStrategy<Operation> {
    let others = u32::from(company == Company::Together) * 3;
    match others {
        0 => prop_oneof![10 => on_bytes(), 10 => on_names(), 4 => on_the_whole()].boxed(),
        _ => prop_oneof![10 => on_bytes(), 10 => on_names(), 4 => on_the_whole(), 4 => of_others()]
            .boxed(),
    }
}
