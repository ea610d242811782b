//! Notes that one device runs in two places at once, which a copied data directory leads to.
//!
//! Each of the two takes the session from the other, so where the device says that it listens goes back and forth.
//!
//! Leaves out: what is done about it (`driver`); chains that have forked meanwhile (the journal).
//!
//! Invariants:
//! - pure; time is an argument;
//! - a device that moves once, or back once, is no twin: [`limits::TWIN_RETURNS`] returns within
//!   [`limits::TWIN_WINDOW`] are.

use std::collections::{BTreeMap, VecDeque};

use journal::DeviceId;

use crate::limits;
use crate::wire::Addr;

/// Where one device said that it listens.
#[derive(Debug, Default)]
struct Places {
    now: Vec<Addr>,
    before: Vec<Addr>,
    /// When it came back to where it was before, ms.
    returns: VecDeque<u64>,
}

/// See the module's words.
#[derive(Debug, Default)]
pub(crate) struct Twins(BTreeMap<DeviceId, Places>);

fn meets(one: &[Addr], other: &[Addr]) -> bool {
    one.iter().any(|addr| other.contains(addr))
}

impl Twins {
    /// A device says where it listens. Gives where its twin does when there must be one.
    pub(crate) fn announced(
        &mut self,
        device: &DeviceId,
        addrs: &[Addr],
        now_ms: u64,
    ) -> Option<Vec<Addr>> {
        if addrs.is_empty() {
            return None;
        }
        let places = self.0.entry(*device).or_default();
        if meets(&places.now, addrs) {
            places.now = addrs.to_vec();
            return None;
        }
        let is_return = meets(&places.before, addrs);
        places.before = std::mem::replace(&mut places.now, addrs.to_vec());
        if !is_return {
            return None;
        }
        let since = now_ms.saturating_sub(limits::TWIN_WINDOW.as_millis() as u64);
        places.returns.retain(|at| *at >= since);
        places.returns.push_back(now_ms);
        if places.returns.len() > limits::TWIN_RETURNS {
            places.returns.pop_front();
        }
        (places.returns.len() == limits::TWIN_RETURNS).then(|| places.before.clone())
    }

    /// Forgets all but these.
    pub(crate) fn keep(&mut self, members: &[DeviceId]) {
        self.0.retain(|device, _| members.contains(device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Vec<Addr> {
        let text = format!("/ip4/10.0.0.1/tcp/{port}");
        vec![Addr::new(text.parse().unwrap()).unwrap()]
    }

    #[test]
    fn who_goes_back_and_forth_runs_twice_and_who_moves_does_not() {
        let window = limits::TWIN_WINDOW.as_millis() as u64;
        let (one, other) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
        let mut twins = Twins::default();
        for (n, port) in [1, 1, 2, 3, 4, 5, 6].into_iter().enumerate() {
            assert_eq!(twins.announced(&one, &at(port), n as u64), None, "it only moved");
        }
        // To the office and home again, day by day.
        for day in 0..10 {
            let now_ms = u64::from(day) * 2 * window;
            assert_eq!(twins.announced(&other, &at(7 + day % 2), now_ms), None);
        }
        let mut told = Vec::new();
        for (n, port) in [7, 8, 7, 8, 7].into_iter().enumerate() {
            told.push(twins.announced(&one, &at(port), 100 + n as u64));
        }
        assert_eq!(told, [None, None, None, Some(at(7)), Some(at(8))]);
        assert_eq!(twins.announced(&one, &[], 200), None);
        twins.keep(&[other]);
        assert_eq!(twins.announced(&one, &at(8), 201), None);
    }
}
