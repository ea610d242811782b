//! Own claims: begun, decided, renewed, given back, lost.
//!
//! Leaves out: others' claims (`answering`).
//!
//! Invariants:
//! - a claim is decided once, at the latest at its time;
//! - whoever was told of a claim is told of its end, unless its stream ended before.

use super::*;

impl Table {
    /// Begins a claim. It waits for the silent until `patience_ms` have passed.
    pub fn claim(&mut self, now: Now, claim: LockClaim, patience_ms: u64) -> Began {
        self.advance(now);
        let scope = claim.scope.folded();
        let mut above = claim.above;
        above.truncate(limits::LOCK_ABOVE_MAX);
        let chain = book::chain(&scope, above);
        if let Some(key) = self.book.exactly(self.me, &scope) {
            if !self.is_own(&key) {
                return Began::Waiting(key.1);
            }
            let unreachable = self.unreachable(self.now_ms, key.1);
            return Began::Decided(LockOutcome::Held { unreachable, newer: false });
        }
        let seen = self.book.overlapping(&scope, &chain).into_iter();
        let foreign = seen.filter(|key| self.is_seen(self.now_ms, key));
        if let Some(key) = foreign.min_by_key(|key| self.rank_of(key))
            && let Some(foreign) = self.foreign(&key)
        {
            return Began::Decided(LockOutcome::Denied(foreign));
        }
        if self.mine.len() >= limits::LOCKS_OF_PEER_MAX {
            let unreachable = self.expected.len() as u32;
            return Began::Decided(LockOutcome::Held { unreachable, newer: false });
        }
        self.last_id += 1;
        let id = self.last_id;
        let mut bases = claim.bases;
        bases.truncate(limits::LOCK_BASES_MAX);
        let entry = Entry {
            scope,
            chain,
            priority: claim.priority,
            bases,
            standing: Standing::Asking,
            told: Told::Asked,
            since_ms: self.now_ms as i64,
            unreachable: 0,
        };
        self.book.insert((self.me, id), entry);
        let decide_at_ms = self.now_ms.saturating_add(patience_ms);
        let mine =
            Mine { decide_at_ms, asked: BTreeMap::new(), granted: BTreeSet::new(), newer: false };
        self.mine.insert(id, mine);
        self.undecided.insert((decide_at_ms, id));
        for device in self.connected() {
            if self.peers.get(&device).is_some_and(|peer| peer.link == Link::Met) {
                self.tell(device, &[id]);
            }
        }
        match self.decide(id) {
            Some(outcome) => Began::Decided(outcome),
            None => Began::Waiting(id),
        }
    }

    /// Gives an own lock back, or withdraws its claim.
    pub fn release(&mut self, now: Now, scope: &Scope) {
        self.advance(now);
        let scope = scope.clone().folded();
        let Some((_, id)) = self.book.exactly(self.me, &scope) else { return };
        if !self.is_own(&(self.me, id)) {
            let outcome = LockOutcome::Closed;
            self.effects.push_back(Effect::Decided { id, scope, outcome });
        }
        self.let_go(id);
    }

    /// Gives everything back: this device stops.
    pub fn release_all(&mut self, now: Now) {
        self.advance(now);
        let ids: Vec<u64> = self.mine.keys().copied().collect();
        for id in ids {
            self.let_go(id);
        }
    }

    /// Tells `device` of own claims of that standing that it was not told of on this connection.
    pub(super) fn tell_claims(&mut self, device: DeviceId, least: Standing) {
        let told = |id: &u64| self.mine.get(id).is_some_and(|m| m.asked.contains_key(&device));
        let own = self.book.of(self.me).filter(|(_, entry)| entry.standing >= least);
        let ids: Vec<u64> = own.map(|(key, _)| key.1).filter(|id| !told(id)).collect();
        self.tell(device, &ids);
    }

    /// Sends claims. A peer that has had too much of us is not asked and counts as silent; what is held it must know.
    pub(super) fn tell(&mut self, device: DeviceId, ids: &[u64]) {
        for ids in ids.chunks(limits::LOCK_CLAIMS_MAX) {
            let held = ids.iter().any(|id| self.is_own(&(self.me, *id)));
            let hidden = held && !self.keeps(Rule::HelloTellsHoldings);
            let sent = (self.may_send(device) || held) && !hidden;
            let answer = if sent { Answer::None } else { Answer::Unasked };
            let mut claims = Vec::new();
            for id in ids {
                claims.extend(self.message_of(*id));
                let Some(mine) = self.mine.get_mut(id) else { continue };
                // An answer to the first time may still be under way, and counts from then.
                let open = mine.asked.get(&device).filter(|ask| ask.is_open());
                let sent_ms = open.map_or(self.now_ms, |ask| ask.sent_ms);
                mine.asked.insert(device, Ask { sent_ms, answer });
            }
            if !sent || claims.is_empty() {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&device) {
                // It may deny, and grant later, or take that back.
                peer.takes.owe(3 * claims.len() as u64);
            }
            self.send(device, LockMessage::Claims(claims));
        }
    }

    fn message_of(&self, id: u64) -> Option<Claim> {
        let entry = self.book.get(&(self.me, id))?;
        let held = entry.standing == Standing::Own;
        Some(Claim {
            id,
            scope: entry.scope.clone(),
            above: entry.chain.iter().take(limits::LOCK_ABOVE_MAX).copied().collect(),
            priority: entry.priority,
            // What its writer had in front of it when it claimed says nothing of what it has by now.
            bases: if held { Vec::new() } else { entry.bases.clone() },
            stage: if held { Stage::Held } else { Stage::Asked },
            age_ms: self.age_ms(entry.since_ms),
            unreachable: if held { self.unreachable(self.now_ms, id) } else { self.absent_count() },
        })
    }

    /// How many members that count are not connected: what a lock taken now will lack at least.
    fn absent_count(&self) -> u32 {
        let down =
            |device: &&DeviceId| self.peers.get(device).is_none_or(|peer| peer.link == Link::Down);
        self.expected.iter().filter(down).count() as u32
    }

    // Answers ------------------------------------------------------------------------------------

    pub(super) fn handle_grants(&mut self, from: DeviceId, grants: &[(u64, bool)]) {
        if self.peers.get(&from).is_none_or(|peer| peer.deaf.is_some()) {
            return;
        }
        for (id, newer) in grants {
            let Some(mine) = self.mine.get_mut(id) else { continue };
            let Some(ask) = mine.asked.get_mut(&from) else { continue };
            ask.answer = Answer::Granted;
            mine.granted.insert(from);
            mine.newer |= newer;
            let sent_ms = ask.sent_ms;
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.counted = true;
                peer.confirm(sent_ms);
            }
            self.decide_and_tell(*id);
        }
    }

    pub(super) fn handle_unknown(&mut self, from: DeviceId, ids: &[u64]) {
        for id in ids {
            let Some(mine) = self.mine.get_mut(id) else { continue };
            let Some(ask) = mine.asked.get_mut(&from) else { continue };
            ask.answer = Answer::Unknown;
            let sent_ms = ask.sent_ms;
            mine.granted.remove(&from);
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.confirm(sent_ms);
            }
            self.decide_and_tell(*id);
        }
    }

    pub(super) fn handle_deny(&mut self, from: DeviceId, denial: Denial) {
        let id = denial.id;
        let key = (self.me, id);
        if denial.holder == self.me || !self.mine.contains_key(&id) {
            return;
        }
        let since_ms =
            (self.now_ms as i64).saturating_sub(i64::try_from(denial.age_ms).unwrap_or(i64::MAX));
        let foreign = Foreign {
            device: denial.holder,
            since_ms: self.wall_ms(since_ms),
            whole: denial.unreachable == 0,
            unreachable: denial.unreachable,
            below: false,
        };
        let better = (denial.priority, denial.holder) < self.rank_of(&key);
        let sure = denial.holder == from && denial.stage == Stage::Held;
        if let Some(mine) = self.mine.get_mut(&id) {
            mine.granted.remove(&from);
            if let Some(ask) = mine.asked.get_mut(&from) {
                ask.answer = Answer::Denied(foreign);
            }
        }
        match (self.is_own(&key), better) {
            (true, true) => self.lose(id),
            // It will hear that we hold it, and yield.
            (true, false) => {}
            (false, _) if better || sure => self.refuse(id, foreign),
            (false, _) => self.decide_and_tell(id),
        }
    }

    // Ends ---------------------------------------------------------------------------------------

    /// How a claim ends, if it can be said by now.
    fn decide(&mut self, id: u64) -> Option<LockOutcome> {
        let key = (self.me, id);
        if self.book.get(&key)?.standing != Standing::Asking {
            return None;
        }
        let mine = self.mine.get(&id)?;
        let up = self.peers.iter().filter(|(_, peer)| peer.link != Link::Down);
        let (mut silent, mut denied) = (Vec::new(), None);
        for (device, peer) in up {
            match mine.asked.get(device).map(|ask| ask.answer) {
                None | Some(Answer::None) if peer.mute => {}
                None | Some(Answer::None) => silent.push(*device),
                Some(Answer::Denied(foreign)) => denied = Some(foreign),
                Some(Answer::Granted | Answer::Unknown | Answer::Unasked) => {}
            }
        }
        let decide_at_ms = mine.decide_at_ms;
        let late = self.now_ms >= decide_at_ms && self.keeps(Rule::SilentAreLeftOut);
        match denied {
            Some(foreign) if late => {
                self.let_go(id);
                Some(LockOutcome::Denied(foreign))
            }
            None if late || silent.is_empty() => {
                for device in silent {
                    if let Some(peer) = self.peers.get_mut(&device) {
                        peer.mute = true;
                    }
                }
                self.undecided.remove(&(decide_at_ms, id));
                let unreachable = self.unreachable(self.now_ms, id);
                if let Some(entry) = self.book.get_mut(&key) {
                    entry.standing = Standing::Own;
                    entry.unreachable = unreachable;
                }
                self.tell_silent(id);
                Some(self.outcome_held(id))
            }
            _ => None,
        }
    }

    /// Whoever did not answer hears that it is held now: it may have decided alike meanwhile.
    fn tell_silent(&mut self, id: u64) {
        let asked = self.mine.get(&id).into_iter().flat_map(|mine| &mine.asked);
        let silent: Vec<DeviceId> =
            asked.filter(|(_, ask)| ask.is_open()).map(|(device, _)| *device).collect();
        if self.keeps(Rule::SilentAreTold) {
            silent.into_iter().for_each(|device| self.tell(device, &[id]));
        }
    }

    pub(super) fn decide_and_tell(&mut self, id: u64) {
        let scope = self.book.get(&(self.me, id)).map(|entry| entry.scope.clone());
        if let (Some(outcome), Some(scope)) = (self.decide(id), scope) {
            self.effects.push_back(Effect::Decided { id, scope, outcome });
        }
    }

    pub(super) fn decide_all(&mut self) {
        let ids: Vec<u64> = self.undecided.iter().map(|(_, id)| *id).collect();
        for id in ids {
            self.decide_and_tell(id);
        }
    }

    fn outcome_held(&self, id: u64) -> LockOutcome {
        let newer = self.mine.get(&id).is_some_and(|mine| mine.newer);
        LockOutcome::Held { unreachable: self.unreachable(self.now_ms, id), newer }
    }

    /// Members that count and have not granted it, or not lately.
    pub(super) fn unreachable(&self, now_ms: u64, id: u64) -> u32 {
        let mine = self.mine.get(&id);
        let granted = |device: &&DeviceId| {
            let granted = mine.is_some_and(|mine| mine.granted.contains(device));
            granted && self.peers.get(device).is_some_and(|peer| peer.counts(now_ms, self))
        };
        self.expected.iter().filter(|device| !granted(device)).count() as u32
    }

    /// An own claim is refused.
    pub(super) fn refuse(&mut self, id: u64, foreign: Foreign) {
        let scope = self.book.get(&(self.me, id)).map(|entry| entry.scope.clone());
        self.let_go(id);
        if let Some(scope) = scope {
            let outcome = LockOutcome::Denied(foreign);
            self.effects.push_back(Effect::Decided { id, scope, outcome });
        }
    }

    /// An own lock is somebody else's now.
    pub(super) fn lose(&mut self, id: u64) {
        if let Some(entry) = self.book.get(&(self.me, id)) {
            self.effects.push_back(Effect::Lost(entry.scope.clone()));
        }
        self.let_go(id);
    }

    /// Ends an own claim and tells everybody who knows of it.
    fn let_go(&mut self, id: u64) {
        let Some(mine) = self.mine.remove(&id) else { return };
        self.undecided.remove(&(mine.decide_at_ms, id));
        let entry = self.book.remove(&(self.me, id));
        for device in mine.asked.keys() {
            if let Some(peer) = self.peers.get_mut(device)
                && peer.link != Link::Down
                && peer.releases.len() < limits::LOCKS_OF_PEER_MAX
            {
                peer.releases.push(id);
            }
        }
        self.tell_ends();
        if let Some(entry) = entry {
            self.reconsider(&entry.scope, &entry.chain);
        }
    }
}
