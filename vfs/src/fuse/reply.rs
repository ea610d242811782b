//! Answers in the kernel's form.
//!
//! Leaves out: the requests ([`super`]); listings, which are answered an entry at a time.

use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, ReplyXattr,
};

use super::TTL;
use super::convert::file_attr;
use crate::attr::Attr;
use crate::errno::errno;
use crate::error::FsError;
use crate::fs::{Entry, Opened};

/// The kernel's number for an error; one that says nothing to the user goes to the log.
pub(super) fn error_of(error: &FsError) -> Errno {
    let number = errno(error);
    if number == rustix::io::Errno::IO.raw_os_error() {
        tracing::warn!(error = error as &dyn std::error::Error, "a request failed");
    }
    Errno::from_i32(number)
}

/// A name and what stands there.
pub(super) fn entry(reply: ReplyEntry, result: Result<Entry, FsError>) {
    match result {
        Ok(entry) => {
            let name_ttl = if entry.lasting { TTL } else { Duration::ZERO };
            reply.entry_with_ttls(&TTL, &name_ttl, &file_attr(&entry.attr), Generation(0));
        }
        Err(error) => reply.error(error_of(&error)),
    }
}

/// Done or not.
pub(super) fn empty(reply: ReplyEmpty, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error_of(&error)),
    }
}

/// What `stat` tells.
pub(super) fn attr(reply: ReplyAttr, result: Result<Attr, FsError>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &file_attr(&attr)),
        Err(error) => reply.error(error_of(&error)),
    }
}

/// How many bytes were taken.
pub(super) fn written(reply: ReplyWrite, result: Result<usize, FsError>) {
    match result {
        Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
        Err(error) => reply.error(error_of(&error)),
    }
}

/// A value whose size is asked for first.
pub(super) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, FsError>) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(error_of(&FsError::Range)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(Errno::from_i32(errno(&error))),
    }
}

/// An inode's bytes change only through this kernel, so what it has cached stays true. Where it is to be seen what a
/// program reads, the kernel passes on each read as it is: what it reads ahead the program has not seen.
pub(super) fn cache_of(opened: &Opened) -> FopenFlags {
    if opened.keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_DIRECT_IO }
}

/// A handle.
pub(super) fn open(reply: ReplyOpen, result: Result<Opened, FsError>) {
    match result {
        Ok(opened) => reply.opened(FileHandle(opened.handle), cache_of(&opened)),
        Err(error) => reply.error(error_of(&error)),
    }
}
