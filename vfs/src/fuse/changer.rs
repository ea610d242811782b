//! Set-id bits after a change of a file's bytes.
//!
//! Leaves out: which bits there are ([`crate::attr`]).
//!
//! Invariant: only a change that was made takes them off.

use fuser::{FileHandle, Request};

use crate::error::FsError;
use crate::fs::Fs;

/// Who changes a file's bytes: whether its set-id bits stay.
#[derive(Clone, Copy)]
pub(super) enum Changer {
    Trusted,
    WithoutSetId,
}

impl Changer {
    pub(super) fn of(request: &Request) -> Self {
        if request.uid() == 0 { Self::Trusted } else { Self::WithoutSetId }
    }

    /// The change was made, or not.
    pub(super) fn done<T>(
        self,
        fs: &Fs,
        fh: FileHandle,
        result: Result<T, FsError>,
    ) -> Result<T, FsError> {
        let done = result?;
        match self {
            Self::Trusted => {}
            Self::WithoutSetId => fs.drop_set_id(fh.0)?,
        }
        Ok(done)
    }
}
