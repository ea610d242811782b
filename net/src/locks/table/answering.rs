//! Others' claims: granted, denied, kept until the way is free.
//!
//! Leaves out: own claims (`claiming`).
//!
//! Invariants: those of [`super`].

use super::*;

/// What a claim is answered.
enum Verdict {
    Granted,
    /// Granted, but the host must look first.
    ToJudge,
    Denied(Denial),
    Unknown,
}

impl Table {
    pub(super) fn handle_claims(&mut self, from: DeviceId, claims: Vec<Claim>) {
        let (mut granted, mut unknown) = (Vec::new(), Vec::new());
        for claim in claims {
            let id = claim.id;
            match self.take_claim(from, claim) {
                Verdict::Granted => granted.push((id, false)),
                Verdict::ToJudge => self.judge((from, id)),
                Verdict::Denied(denial) => self.send(from, LockMessage::Deny(denial)),
                Verdict::Unknown => unknown.push(id),
            }
        }
        if !granted.is_empty() {
            self.send(from, LockMessage::Grants(granted));
        }
        if !unknown.is_empty() {
            self.send(from, LockMessage::Unknown(unknown));
        }
    }

    fn take_claim(&mut self, from: DeviceId, claim: Claim) -> Verdict {
        let key = (from, claim.id);
        let scope = claim.scope.folded();
        let told = match claim.stage {
            Stage::Asked => Told::Asked,
            Stage::Held => Told::Held,
        };
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.unlisted.remove(&claim.id);
        }
        if self.book.get(&key).is_some_and(|entry| entry.scope == scope)
            && let Some(verdict) = self.take_again(key, told, claim.unreachable)
        {
            return verdict;
        }
        // A number or a scope that is used again takes the place of the claim that had it.
        self.take_out(key);
        if let Some(before) = self.book.exactly(from, &scope) {
            self.take_out(before);
        }
        let chain = book::chain(&scope, claim.above);
        let count = self.book.of(from).count();
        let above = self.peers.get(&from).map_or(usize::MAX, |peer| peer.above);
        if count >= limits::LOCKS_OF_PEER_MAX
            || above.saturating_add(chain.len()) > limits::LOCK_ABOVE_TOTAL_MAX
        {
            return Verdict::Unknown;
        }
        let age_ms = i64::try_from(claim.age_ms).unwrap_or(i64::MAX);
        let entry = Entry {
            scope,
            chain,
            priority: claim.priority,
            bases: claim.bases,
            standing: Standing::Waiting,
            told,
            since_ms: (self.now_ms as i64).saturating_sub(age_ms),
            unreachable: claim.unreachable,
        };
        self.decide_about(key, entry)
    }

    /// A claim that is known is told again: it is held now, or the connection is a new one.
    fn take_again(&mut self, key: Key, told: Told, unreachable: u32) -> Option<Verdict> {
        let entry = self.book.get_mut(&key)?;
        let news = entry.unreachable != unreachable;
        entry.told = entry.told.max(told);
        entry.unreachable = unreachable;
        let (scope, chain, standing) = (entry.scope.clone(), entry.chain.clone(), entry.standing);
        if standing != Standing::Promised {
            return None;
        }
        if news {
            self.effects.push_back(Effect::Changed(scope.clone()));
        }
        // Whoever waits for it with a better right has met it here.
        let rank = self.rank_of(&key);
        let better = self.book.overlapping(&scope, &chain).into_iter().find(|other| {
            let waits = |e: &Entry| e.standing == Standing::Waiting && e.told == Told::Held;
            let meets = other.0 != key.0 && self.book.get(other).is_some_and(waits);
            meets && told == Told::Held && self.rank_of(other) < rank
        });
        Some(match better.and_then(|other| self.denial(key.1, &other)) {
            Some(denial) => Verdict::Denied(denial),
            None => self.grant_of(&key),
        })
    }

    fn decide_about(&mut self, key: Key, entry: Entry) -> Verdict {
        let rank = (entry.priority, key.0);
        let mut overlapping = self.book.overlapping(&entry.scope, &entry.chain);
        overlapping.retain(|other| other.0 != key.0);
        let (own, others): (Vec<Key>, Vec<Key>) =
            overlapping.into_iter().partition(|other| other.0 == self.me);
        for other in &own {
            if self.own_stands(other, &entry, rank)
                && let Some(denial) = self.denial(key.1, other)
            {
                return Verdict::Denied(denial);
            }
        }
        let promised = |table: &Self, other: &Key| {
            let stands = table.book.get(other).map(|e| e.standing) == Some(Standing::Promised);
            stands && table.keeps(Rule::OneAtATime)
        };
        let others: Vec<Key> = others.into_iter().filter(|other| promised(self, other)).collect();
        let first = others.iter().min_by_key(|other| self.rank_of(other)).copied();
        let denial = first.and_then(|first| self.denial(key.1, &first));
        if let (Some(first), Some(denial)) = (first, denial)
            && (self.rank_of(&first) < rank || !self.keeps(Rule::BetterWaits))
        {
            return Verdict::Denied(denial);
        }
        let told = entry.told;
        let asks_host = !entry.bases.is_empty() && matches!(entry.scope, Scope::Name(_));
        self.put_in(key, entry);
        for other in own {
            self.give_way(other, &key);
        }
        if let Some(denial) = denial {
            if told == Told::Held {
                for other in others {
                    self.revoke(&other, &key);
                }
            }
            return Verdict::Denied(denial);
        }
        if self.grace && self.keeps(Rule::Grace) {
            return Verdict::Unknown;
        }
        self.promise(&key);
        if asks_host { Verdict::ToJudge } else { Verdict::Granted }
    }

    /// Whether an own claim stands against somebody else's.
    fn own_stands(&self, own: &Key, theirs: &Entry, their_rank: (u64, DeviceId)) -> bool {
        let Some(standing) = self.book.get(own).map(|entry| entry.standing) else { return false };
        let better = self.rank_of(own) < their_rank;
        match (standing, theirs.told) {
            (Standing::Own, Told::Held) => better && self.keeps(Rule::MeetingIsDecided),
            (Standing::Own, Told::Asked) => true,
            (_, Told::Held) => false,
            (_, Told::Asked) => better || !self.keeps(Rule::WorseYields),
        }
    }

    /// An own claim yields, or an own lock is lost, to `winner`.
    fn give_way(&mut self, own: Key, winner: &Key) {
        let Some(foreign) = self.foreign(winner) else { return };
        match self.book.get(&own).map(|entry| entry.standing) {
            Some(Standing::Own) if self.keeps(Rule::MeetingIsDecided) => self.lose(own.1),
            Some(Standing::Asking) => self.refuse(own.1, foreign),
            _ => {}
        }
    }

    /// Tells the holder of a grant that somebody with a better right holds the same; its release frees the way.
    fn revoke(&mut self, promised: &Key, better: &Key) {
        if let Some(denial) = self.denial(promised.1, better) {
            self.send(promised.0, LockMessage::Deny(denial));
        }
    }

    fn promise(&mut self, key: &Key) {
        let seen = self.is_seen(self.now_ms, key);
        if let Some(entry) = self.book.get_mut(key) {
            entry.standing = Standing::Promised;
            if !seen {
                self.effects.push_back(Effect::Changed(entry.scope.clone()));
            }
        }
    }

    fn grant_of(&self, key: &Key) -> Verdict {
        match self.book.get(key) {
            Some(Entry { scope: Scope::Name(_), bases, .. }) if !bases.is_empty() => {
                Verdict::ToJudge
            }
            _ => Verdict::Granted,
        }
    }

    fn judge(&mut self, (to, id): Key) {
        if let Some(entry) = self.book.get(&(to, id))
            && let Scope::Name(register) = &entry.scope
        {
            let (register, bases) = (register.clone(), entry.bases.clone());
            self.effects.push_back(Effect::Judge { to, id, register, bases });
        }
    }

    /// Answer to [`Effect::Judge`]. Says nothing if the grant is over by now.
    pub fn handle_judged(&mut self, now: Now, to: DeviceId, id: u64, newer: bool) {
        self.advance(now);
        if self.book.get(&(to, id)).is_some_and(|e| e.standing == Standing::Promised) {
            self.send(to, LockMessage::Grants(vec![(id, newer)]));
        }
    }

    fn denial(&self, id: u64, other: &Key) -> Option<Denial> {
        let entry = self.book.get(other)?;
        let held = entry.standing == Standing::Own || entry.told == Told::Held;
        Some(Denial {
            id,
            holder: other.0,
            priority: entry.priority,
            stage: if held { Stage::Held } else { Stage::Asked },
            age_ms: self.age_ms(entry.since_ms),
            unreachable: match entry.standing {
                Standing::Own => self.unreachable(self.now_ms, other.1),
                _ => entry.unreachable,
            },
        })
    }

    fn put_in(&mut self, key: Key, entry: Entry) {
        if let Some(peer) = self.peers.get_mut(&key.0) {
            peer.above = peer.above.saturating_add(entry.chain.len());
        }
        let scope = entry.scope.clone();
        self.book.insert(key, entry);
        if self.is_seen(self.now_ms, &key) {
            self.effects.push_back(Effect::Changed(scope));
        }
    }

    /// Removes a claim of somebody else's; whoever waits for it waits on.
    pub(super) fn take_out(&mut self, key: Key) -> Option<Entry> {
        if key.0 == self.me {
            return None;
        }
        let entry = self.book.remove(&key)?;
        if let Some(peer) = self.peers.get_mut(&key.0) {
            peer.above = peer.above.saturating_sub(entry.chain.len());
        }
        if entry.standing == Standing::Promised || entry.told == Told::Held {
            self.effects.push_back(Effect::Changed(entry.scope.clone()));
        }
        Some(entry)
    }

    /// A claim of somebody else's is over.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(entry) = self.take_out(key) {
            self.reconsider(&entry.scope, &entry.chain);
        }
    }

    pub(super) fn end_claims_of(&mut self, device: DeviceId) {
        let keys: Vec<Key> = self.book.of(device).map(|(key, _)| *key).collect();
        // All of them before anything is granted, or one of them might be.
        let ended: Vec<Entry> = keys.into_iter().filter_map(|key| self.take_out(key)).collect();
        for entry in ended {
            self.reconsider(&entry.scope, &entry.chain);
        }
    }

    /// Grants what waits for something there, the best first.
    pub(super) fn reconsider(&mut self, scope: &Scope, chain: &[journal::id::DirId]) {
        let mut waiting = self.book.overlapping(scope, chain);
        let waits = |e: &Entry| e.standing == Standing::Waiting;
        waiting.retain(|key| self.book.get(key).is_some_and(waits));
        waiting.sort_by_key(|key| self.rank_of(key));
        for key in waiting {
            self.reconsider_one(key);
        }
    }

    pub(super) fn reconsider_one(&mut self, key: Key) {
        let Some(entry) = self.book.get(&key) else { return };
        if (self.grace && self.keeps(Rule::Grace)) || !self.keeps(Rule::BetterWaits) {
            return;
        }
        let mut in_the_way = self.book.overlapping(&entry.scope, &entry.chain);
        in_the_way.retain(|other| {
            let stands = self.book.get(other).map(|e| e.standing) != Some(Standing::Waiting);
            stands && other.0 != key.0
        });
        let rank = self.rank_of(&key);
        let better = in_the_way.iter().find(|other| self.rank_of(other) < rank).copied();
        if in_the_way.is_empty() {
            self.promise(&key);
            match self.grant_of(&key) {
                Verdict::ToJudge => self.judge(key),
                _ => self.send(key.0, LockMessage::Grants(vec![(key.1, false)])),
            }
        } else if let Some(denial) = better.and_then(|other| self.denial(key.1, &other)) {
            self.take_out(key);
            self.send(key.0, LockMessage::Deny(denial));
        }
    }

    pub(super) fn handle_renew(&mut self, from: DeviceId, number: u64, doubts: &[(u64, u32)]) {
        let doubts: BTreeMap<u64, u32> = doubts.iter().copied().collect();
        let mut changed = Vec::new();
        for (key, entry) in self.book.of(from) {
            let unreachable = doubts.get(&key.1).copied().unwrap_or(0);
            if entry.unreachable != unreachable {
                changed.push((*key, unreachable));
            }
        }
        for (key, unreachable) in changed {
            if let Some(entry) = self.book.get_mut(&key) {
                entry.unreachable = unreachable;
                self.effects.push_back(Effect::Changed(entry.scope.clone()));
            }
        }
        self.send(from, LockMessage::Renewed(number));
    }
}
