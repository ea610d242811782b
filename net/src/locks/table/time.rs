//! Leases: what time alone does to a table.
//!
//! Leaves out: any clock.
//!
//! Invariants:
//! - every call of the table first does what was due before it, so that nothing is decided by what is over;
//! - between the last word of a holder that a grantor answered and the end of the grant there is always a time in which
//!   the holder does not count it any more and the grantor still keeps it.

use super::*;

impl Table {
    /// Does what is due. At least every [`limits::LOCK_TICK_MS`].
    pub fn handle_time(&mut self, now: Now) {
        self.advance(now);
    }

    /// When to call [`Self::handle_time`] next.
    pub fn next_due_ms(&self) -> u64 {
        let tick = self.now_ms.saturating_add(limits::LOCK_TICK_MS);
        self.undecided.first().map_or(tick, |(at_ms, _)| tick.min(*at_ms))
    }

    pub(super) fn advance(&mut self, now: Now) {
        let passed = now.boot_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now.boot_ms);
        self.wall_ahead_ms = (now.wall_ms as i64).saturating_sub(self.now_ms as i64);
        if passed >= limits::LOCK_COUNTED_MS && self.keeps(Rule::SleepLosesAll) {
            self.lose_all();
        }
        self.lapse();
        self.end_leases();
        self.end_grace();
        while let Some((at_ms, id)) = self.undecided.first().copied()
            && at_ms <= self.now_ms
            && self.keeps(Rule::SilentAreLeftOut)
        {
            self.decide_and_tell(id);
            // Decided at its time, whatever was answered.
            self.undecided.remove(&(at_ms, id));
        }
        self.renew();
        self.tell_ends();
    }

    /// After a sleep others may hold what we held.
    fn lose_all(&mut self) {
        let own = self.book.of(self.me).filter(|(_, e)| e.standing == Standing::Own);
        let ids: Vec<u64> = own.map(|(key, _)| key.1).collect();
        for id in ids {
            self.lose(id);
        }
    }

    /// Grants that were not confirmed in time are gone, whatever is confirmed later: their grantor may have given them
    /// to others meanwhile. They are claimed again.
    fn lapse(&mut self) {
        if !self.keeps(Rule::LapsedForGood) {
            return;
        }
        let lapsed = |peer: &Peer| peer.counted && !peer.counts(self.now_ms, self);
        let devices: Vec<DeviceId> =
            self.peers.iter().filter(|(_, peer)| lapsed(peer)).map(|(d, _)| *d).collect();
        for device in devices {
            let mut ids = Vec::new();
            for (id, mine) in &mut self.mine {
                if mine.granted.remove(&device) {
                    ids.push(*id);
                }
            }
            let Some(peer) = self.peers.get_mut(&device) else { continue };
            peer.counted = false;
            if ids.is_empty() || peer.link != Link::Met {
                continue;
            }
            self.send_renewal(device);
            if let Some(peer) = self.peers.get_mut(&device) {
                peer.deaf = Some(self.last_renewal);
            }
            self.tell(device, &ids);
        }
    }

    fn end_leases(&mut self) {
        let over = |peer: &Peer| !peer.is_leased(self.now_ms, self);
        let devices: Vec<DeviceId> =
            self.peers.iter().filter(|(_, peer)| over(peer)).map(|(d, _)| *d).collect();
        for device in devices {
            self.end_claims_of(device);
        }
    }

    /// What was granted before the start is over after a lease; sooner, when every member has told what it holds and
    /// knows that what the run before granted is void.
    fn end_grace(&mut self) {
        let met = |device: &DeviceId| self.peers.get(device).is_some_and(|peer| peer.knows_us);
        let all_met = !self.members.is_empty() && self.members.iter().all(met);
        let over = self.now_ms >= self.started_ms.saturating_add(limits::LOCK_LEASE_MS);
        if !self.grace || !(over || all_met) {
            return;
        }
        self.grace = false;
        let waiting = self.book.iter().filter(|(_, e)| e.standing == Standing::Waiting);
        let mut waiting: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        waiting.sort_by_key(|key| self.rank_of(key));
        for key in waiting {
            self.reconsider_one(key);
        }
    }

    fn renew(&mut self) {
        for device in self.connected() {
            let holds = self.mine.values().any(|mine| mine.asked.contains_key(&device));
            let Some(peer) = self.peers.get_mut(&device) else { continue };
            if !holds {
                peer.renew_at_ms = self.now_ms.saturating_add(limits::LOCK_RENEW_MS);
            } else if peer.link == Link::Met && peer.renew_at_ms <= self.now_ms {
                self.send_renewal(device);
            }
        }
    }

    pub(super) fn send_renewal(&mut self, device: DeviceId) {
        self.last_renewal += 1;
        let (number, now_ms) = (self.last_renewal, self.now_ms);
        let told = |(id, mine): &(&u64, &Mine)| {
            mine.asked.contains_key(&device) && self.is_own(&(self.me, **id))
        };
        let doubts = self.mine.iter().filter(told);
        let doubts = doubts.map(|(id, _)| (*id, self.unreachable(now_ms, *id)));
        let doubts: Vec<(u64, u32)> = doubts.filter(|(_, unreachable)| *unreachable > 0).collect();
        let Some(peer) = self.peers.get_mut(&device) else { return };
        peer.renew_at_ms = now_ms.saturating_add(limits::LOCK_RENEW_MS);
        peer.renewals.insert(number, now_ms);
        if peer.renewals.len() > RENEWALS_MAX {
            peer.renewals.pop_first();
        }
        peer.takes.owe(1);
        self.send(device, LockMessage::Renew(number, doubts));
    }

    pub(super) fn handle_renewed(&mut self, from: DeviceId, number: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(sent_ms) = peer.renewals.get(&number).copied() else { return };
        peer.renewals.retain(|before, _| *before > number);
        peer.knows_us = true;
        let silent_ms = self.now_ms.saturating_sub(peer.confirmed_ms);
        peer.confirm(sent_ms);
        if peer.deaf.is_some_and(|deaf| deaf <= number) {
            peer.deaf = None;
        }
        if silent_ms >= limits::LOCK_COUNTED_MS {
            // Our lease may have ended there, and with it what it knew without having granted it.
            let ungranted = self.mine.iter().filter(|(id, mine)| {
                let told = mine.asked.contains_key(&from) && !mine.granted.contains(&from);
                told && self.is_own(&(self.me, **id))
            });
            let ids: Vec<u64> = ungranted.map(|(id, _)| *id).collect();
            self.tell(from, &ids);
        }
        self.end_grace();
    }
}

/// Renewals of a peer that wait for an answer, count; the oldest says nothing that a later one does not.
const RENEWALS_MAX: usize = 16;
