//! What other devices were known to hold, and when: a version that exists nowhere else is not collected.
//!
//! A device that says that it holds a frontier has every content it must have under it *then*. What the policy had let
//! go of by that time it may never have had. So the moment is kept beside the frontier.
//!
//! Leaves out: what a device must have (`journal`), and how it says what it holds (`net`).
//!
//! Invariants:
//! - a device that takes back what it said counts as one that never said it;
//! - at most [`POINTS_MAX`] moments are kept for a device; forgetting one, or the whole file, only makes more seem to be
//!   here alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use journal::{DeviceId, Frontier};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Moments kept for one device.
const POINTS_MAX: usize = 64;
/// Devices remembered; more have come and gone than a drive has members.
const DEVICES_MAX: usize = 256;
/// Largest file read, bytes.
const FILE_LEN_MAX: u64 = 64 << 20;

/// A device held everything it must under `held`, at the moment `at_ms`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) at_ms: u64,
    pub(super) held: Frontier,
}

/// The moments, by device, oldest first.
pub(super) struct Elsewhere {
    points: Mutex<BTreeMap<DeviceId, Vec<Point>>>,
    file: PathBuf,
}

impl Elsewhere {
    /// Reads what was known when the drive was last closed.
    pub(super) fn load(dir: &Path) -> Self {
        let file = dir.join("elsewhere");
        let fits = std::fs::metadata(&file).is_ok_and(|meta| meta.len() <= FILE_LEN_MAX);
        let points = fits
            .then(|| std::fs::read(&file).ok())
            .flatten()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .unwrap_or_default();
        Self { points: Mutex::new(points), file }
    }

    /// `by` said that it holds everything it must under `held`.
    pub(super) fn told(&self, by: DeviceId, held: &Frontier, at_ms: u64) {
        let mut all = self.points.lock();
        if held.tips.is_empty() {
            all.remove(&by);
            return;
        }
        if all.len() >= DEVICES_MAX && !all.contains_key(&by) {
            return;
        }
        let points = all.entry(by).or_default();
        if points.last().is_some_and(|last| last.held == *held) {
            return;
        }
        points.push(Point { at_ms, held: held.clone() });
        if points.len() > POINTS_MAX {
            thin(points);
        }
    }

    /// What these devices were known to hold.
    pub(super) fn of(&self, devices: &[DeviceId]) -> Vec<Point> {
        let all = self.points.lock();
        devices.iter().filter_map(|device| all.get(device)).flatten().cloned().collect()
    }

    /// Writes it down. Not synced: losing it makes more seem to be here alone.
    pub(super) fn save(&self) {
        let Ok(bytes) = postcard::to_allocvec(&*self.points.lock()) else { return };
        let new = self.file.with_extension("new");
        let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, "could not write down what other devices hold");
        }
    }
}

/// Forgets the moment that tells least: the one whose neighbours are closest to each other in time. The last stays.
fn thin(points: &mut Vec<Point>) {
    let gaps = points.windows(3).enumerate().map(|(index, three)| match three {
        [before, _, after] => (after.at_ms.saturating_sub(before.at_ms), index + 1),
        _ => (u64::MAX, index + 1),
    });
    if let Some((_, index)) = gaps.min() {
        points.remove(index);
    }
}

#[cfg(test)]
mod tests {
    use journal::{EntryId, Tip};

    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    fn upto(seq: u64) -> Frontier {
        let entry = EntryId::from_bytes([seq as u8; 32]);
        Frontier { tips: vec![Tip { device: device(9), seq, entry }] }
    }

    #[test]
    fn what_was_said_is_known_after_a_restart_and_what_was_taken_back_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = Elsewhere::load(dir.path());
        elsewhere.told(device(1), &upto(1), 10);
        elsewhere.told(device(1), &upto(1), 20);
        elsewhere.told(device(2), &upto(2), 30);
        elsewhere.save();
        let elsewhere = Elsewhere::load(dir.path());
        let point = |at_ms, seq| Point { at_ms, held: upto(seq) };
        assert_eq!(elsewhere.of(&[device(1), device(3)]), [point(10, 1)]);
        elsewhere.told(device(1), &Frontier::default(), 40);
        assert_eq!(elsewhere.of(&[device(1), device(2)]), [point(30, 2)]);
    }

    #[test]
    fn many_moments_are_thinned_out_evenly() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = Elsewhere::load(dir.path());
        for n in 0..1_000u64 {
            elsewhere.told(device(1), &upto(n % 250 + n / 250 * 1_000), n * 1_000);
        }
        let points = elsewhere.of(&[device(1)]);
        assert_eq!(points.len(), POINTS_MAX);
        assert_eq!(points[0].at_ms, 0);
        assert_eq!(points[POINTS_MAX - 1].at_ms, 999_000);
        assert!(points.is_sorted_by_key(|point| point.at_ms));
    }

    #[test]
    fn a_damaged_file_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("elsewhere"), [0xff; 50]).unwrap();
        assert!(Elsewhere::load(dir.path()).of(&[device(1)]).is_empty());
    }
}
