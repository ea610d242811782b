//! Benchmarks against the tools people use today, all contenders in one run on one machine: only ratios within a run
//! count, and every figure is printed with the command that repeats it.
//!
//! [`sync`] compares how work travels between two hosts with rsync and Syncthing; [`mount`] compares the mount with
//! the native file system, with a FUSE file system that does nothing of its own and with gocryptfs; [`scale`] shows what
//! very large files, directories and drives cost; [`journal`] what very many entries do.
//!
//! Invariants
//! * What arrived is compared byte for byte, outside of the time that is measured.
//! * All contenders get the same bytes, the same file system below and the same machine.

pub mod journal;
pub mod locks;
pub mod mount;
pub mod peers;
pub mod scale;
pub mod sync;
pub mod table;
pub mod under;

/// How much work a run does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Size {
    /// What the figures are quoted from.
    Full,
    /// A sixteenth of it, to see that everything works.
    Quick,
}

impl Size {
    /// `full`, or a sixteenth of it.
    pub fn of(self, full: u64) -> u64 {
        match self {
            Size::Full => full,
            Size::Quick => full.div_ceil(16),
        }
    }
}
