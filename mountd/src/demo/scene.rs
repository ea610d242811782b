//! The files of the demo: something that looks like a scene, and an edit of it.
//!
//! Leaves out a real scene's meaning. Invariant: the same seed gives the same bytes, so that the demo
//! can say what it expects.

/// Size of the scene, bytes.
const SCENE_LEN: usize = 6 << 20;
/// Size of what an edit changes in the middle, bytes.
const EDIT_LEN: usize = 24 << 10;
/// How a Blender file begins.
const MAGIC: &[u8] = b"BLENDER17-01v0500";

/// A scene: the magic, then blocks of numbers as meshes have, half of them well compressible.
pub(super) fn first(seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SCENE_LEN);
    bytes.extend_from_slice(MAGIC);
    let mut numbers = Numbers(seed);
    while bytes.len() < SCENE_LEN {
        let number = numbers.next();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(number & 0xff).to_le_bytes());
    }
    bytes.truncate(SCENE_LEN);
    bytes
}

/// The scene after an edit: something grew in the middle, everything behind it moved.
pub(super) fn edited(scene: &[u8], seed: u64) -> Vec<u8> {
    let (head, tail) = scene.split_at(scene.len() / 2);
    let mut bytes = head.to_vec();
    let mut numbers = Numbers(seed);
    while bytes.len() < head.len().saturating_add(EDIT_LEN) {
        bytes.extend_from_slice(&numbers.next().to_le_bytes());
    }
    bytes.extend_from_slice(tail);
    bytes
}

/// SplitMix64: small, and the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_changes_the_middle_and_keeps_the_rest() {
        let scene = first(1);
        assert!(scene.starts_with(MAGIC) && scene.len() == SCENE_LEN);
        assert_eq!(scene, first(1));
        assert_ne!(scene, first(2));
        let edited = edited(&scene, 3);
        assert_eq!(edited.len(), SCENE_LEN + EDIT_LEN);
        assert_eq!(edited[..SCENE_LEN / 2], scene[..SCENE_LEN / 2]);
        assert_eq!(edited[edited.len() - SCENE_LEN / 2..], scene[SCENE_LEN / 2..]);
    }
}
