//! The one table from errors to numbers.
//!
//! Leaves out: NTSTATUS, which the Windows adapter will bring.

use cas::WriteError;
use rustix::io::Errno;

use crate::error::FsError;
use crate::traits::SealError;

/// The error number a program sees.
pub fn errno(error: &FsError) -> i32 {
    let number = match error {
        FsError::NotFound => Errno::NOENT,
        FsError::Exists => Errno::EXIST,
        FsError::NotDir => Errno::NOTDIR,
        FsError::IsDir => Errno::ISDIR,
        FsError::NotEmpty => Errno::NOTEMPTY,
        FsError::NameTooLong => Errno::NAMETOOLONG,
        FsError::NameEncoding => Errno::ILSEQ,
        FsError::NotPermitted => Errno::PERM,
        FsError::Access | FsError::Locked(_) => Errno::ACCESS,
        FsError::ReadOnly => Errno::ROFS,
        FsError::Full => Errno::NOSPC,
        FsError::Invalid | FsError::Cycle => Errno::INVAL,
        FsError::NotSupported => Errno::OPNOTSUPP,
        FsError::NoAttribute => Errno::NODATA,
        FsError::NoOffset => Errno::NXIO,
        FsError::Range => Errno::RANGE,
        FsError::TooBig => Errno::NOSPC,
        FsError::FileTooBig => Errno::FBIG,
        FsError::BadHandle => Errno::BADF,
        FsError::Stale => Errno::STALE,
        FsError::TooMany => Errno::MFILE,
        FsError::WouldWait => Errno::AGAIN,
        FsError::Poisoned | FsError::State(_) | FsError::Read(_) => Errno::IO,
        FsError::Write(e) => write_errno(e),
        FsError::Seal(e) => match e {
            SealError::Full => Errno::NOSPC,
            SealError::ReadOnly { .. } => Errno::ROFS,
            SealError::Closed | SealError::Refused(_) | SealError::Failed(_) => Errno::IO,
        },
        FsError::Spool(e) => io_errno(&e.source),
    };
    number.raw_os_error()
}

fn write_errno(error: &WriteError) -> Errno {
    match error {
        WriteError::Full => Errno::NOSPC,
        WriteError::TooLong => Errno::FBIG,
        WriteError::ReadOnly { .. } => Errno::ROFS,
        WriteError::Closed
        | WriteError::Corrupt { .. }
        | WriteError::Base(_)
        | WriteError::Io(_) => Errno::IO,
    }
}

/// Only what tells the program something it can act on is passed through; the rest is an I/O error.
fn io_errno(error: &std::io::Error) -> Errno {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(n @ (Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::FBIG)) => n,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such_wherever_it_was_noticed() {
        let full = Errno::NOSPC.raw_os_error();
        assert_eq!(errno(&FsError::Full), full);
        assert_eq!(errno(&FsError::Seal(SealError::Full)), full);
        let source = std::io::Error::from_raw_os_error(full);
        let spool = cas::PathError::new("x", "write", source);
        assert_eq!(errno(&FsError::Spool(spool)), full);
    }
}
