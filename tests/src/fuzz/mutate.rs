//! Inputs near good ones: most random bytes are refused at the first one, and show nothing of what lies behind.
//!
//! Leaves out: coverage; libFuzzer goes by that.

use proptest::prelude::*;

/// Most changes of one input.
const EDITS_MAX: usize = 8;
/// Longest run of bytes put in or taken out.
const RUN_MAX: usize = 64;

/// One change. Places are fractions of the input, so that a shorter one takes the same changes.
#[derive(Clone, Debug)]
pub enum Edit {
    /// One bit.
    Flip(u16, u8),
    /// One byte.
    Set(u16, u8),
    /// Eight bytes, a number as lengths and counts are written.
    Number(u16, u64),
    /// Bytes put in.
    Insert(u16, Vec<u8>),
    /// Bytes taken out.
    Remove(u16, u16),
    /// A part of it once more, elsewhere.
    Copy(u16, u16, u16),
    /// Everything behind a place.
    Cut(u16),
    /// The rest of another input from there on.
    Splice(u16, u16, u16),
}

fn edit() -> impl Strategy<Value = Edit> {
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        Just(1 << 31),
        0u64..300,
        any::<u64>()
    ];
    prop_oneof![
        4 => (any::<u16>(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        3 => (any::<u16>(), any::<u8>()).prop_map(|(at, to)| Edit::Set(at, to)),
        2 => (any::<u16>(), number).prop_map(|(at, to)| Edit::Number(at, to)),
        1 => (any::<u16>(), prop::collection::vec(any::<u8>(), 1..RUN_MAX))
            .prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (any::<u16>(), 1..RUN_MAX as u16).prop_map(|(at, len)| Edit::Remove(at, len)),
        1 => (any::<u16>(), any::<u16>(), 1..RUN_MAX as u16)
            .prop_map(|(from, to, len)| Edit::Copy(from, to, len)),
        1 => any::<u16>().prop_map(Edit::Cut),
        1 => (any::<u16>(), any::<u16>(), any::<u16>())
            .prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
    ]
}

/// Which input, and what is done to it.
pub fn edits() -> impl Strategy<Value = (u16, Vec<Edit>)> {
    (any::<u16>(), prop::collection::vec(edit(), 0..EDITS_MAX))
}

fn place(len: usize, at: u16) -> usize {
    (len + 1) * usize::from(at) / (usize::from(u16::MAX) + 1)
}

/// Carries the changes out on one of `inputs`.
pub fn apply(inputs: &[Vec<u8>], which: u16, edits: &[Edit]) -> Vec<u8> {
    let pick = |which: u16| inputs.get(usize::from(which) % inputs.len().max(1));
    let mut bytes = pick(which).cloned().unwrap_or_default();
    for edit in edits {
        let at = |at: u16| place(bytes.len(), at).min(bytes.len().saturating_sub(1));
        match edit {
            Edit::Flip(place, bit) => {
                let at = at(*place);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Edit::Set(place, to) => {
                let at = at(*place);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *to);
            }
            Edit::Number(place, to) => {
                let at = at(*place);
                bytes.iter_mut().skip(at).zip(to.to_le_bytes()).for_each(|(byte, to)| *byte = to);
            }
            Edit::Insert(at, new) => {
                let at = place(bytes.len(), *at);
                bytes.splice(at..at, new.iter().copied());
            }
            Edit::Remove(at, len) => {
                let at = place(bytes.len(), *at);
                let end = (at + usize::from(*len)).min(bytes.len());
                bytes.drain(at..end);
            }
            Edit::Copy(from, to, len) => {
                let from = place(bytes.len(), *from);
                let part: Vec<u8> =
                    bytes.iter().skip(from).take(usize::from(*len)).copied().collect();
                let to = place(bytes.len(), *to);
                bytes.splice(to..to, part);
            }
            Edit::Cut(at) => bytes.truncate(place(bytes.len(), *at)),
            Edit::Splice(at, other, from) => {
                bytes.truncate(place(bytes.len(), *at));
                let other = pick(*other).map(Vec::as_slice).unwrap_or_default();
                bytes.extend(other.iter().skip(place(other.len(), *from)));
            }
        }
    }
    bytes
}
