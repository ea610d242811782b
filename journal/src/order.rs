//! The one order of all operations.
//!
//! Leaves out: where the parts of a key come from ([`crate::fold`]).
//!
//! Invariants:
//! - keys compare as DESIGN 4.2 says: publication hlc, own hlc, device, entry; the operation's index
//!   comes after them;
//! - the encoded form sorts bytewise as the keys do.

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::id::{DeviceId, EntryId, ID_LEN};

/// Position of an entry in the drive's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OrderKey {
    /// Hlc of the first own entry that names it late, else its own.
    pub published: Hlc,
    /// Its own hlc.
    pub hlc: Hlc,
    /// Its device.
    pub device: DeviceId,
    /// Its id.
    pub entry: EntryId,
}

impl OrderKey {
    /// Bytes of an encoded key.
    pub const LEN: usize = 8 + 8 + ID_LEN + ID_LEN;

    /// Bytes that sort as the keys do.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let parts: [&[u8]; 4] = [
            &self.published.get().to_be_bytes(),
            &self.hlc.get().to_be_bytes(),
            self.device.as_bytes(),
            self.entry.as_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        out
    }
}
