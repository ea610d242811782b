//! Who may be connected: members, for a few seconds a handful of strangers who hold a ticket, and now and then for a
//! minute a device that was removed.
//!
//! Leaves out: what is spoken ([`super::streams`] asks [`Gate::standing`] for each stream) and the
//! proof itself ([`crate::join`]).
//!
//! Invariants:
//! - a peer that is neither a member nor, while invitations are open, one of at most
//!   [`limits::STRANGERS_MAX`] strangers has no established connection, but for at most [`limits::LEAVING_MAX`] that
//!   were removed, each once in [`limits::LEAVING_INTERVAL`];
//! - the member list is the host's, copied at [`Gate::set_members`]; every later question sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use parking_lot::Mutex;

use crate::limits;

/// How a connected peer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Admitted by the drive's journal.
    Member,
    /// Nobody yet: the join protocol only.
    Stranger,
    /// Removed: it hears of that, and leaves what it wrote before.
    Leaving,
}

/// Whether peers that are no members are let in to prove a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strangers {
    /// At least one invitation is open.
    Allowed,
    /// None is.
    Refused,
    /// We are the stranger: everybody we dial is taken, nobody who dials us is.
    WeJoin,
}

#[derive(Debug)]
struct State {
    members: BTreeSet<PeerId>,
    banned: BTreeMap<PeerId, Instant>,
    strangers: Strangers,
    pending: BTreeMap<ConnectionId, Instant>,
    removed: BTreeSet<PeerId>,
    /// When the visits of removed devices end; some are over.
    visits: BTreeMap<PeerId, Instant>,
    leaving: BTreeMap<ConnectionId, Instant>,
}

/// See the module's words.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

/// Why a connection was refused; the peer is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the peer is not a member")]
    NotMember,
    #[error("too many peers are waiting to prove an invitation")]
    TooManyStrangers,
    #[error("the peer is kept out for breaking the protocol")]
    Banned,
}

impl Gate {
    pub(crate) fn new(strangers: Strangers) -> Self {
        Self {
            state: Mutex::new(State {
                members: BTreeSet::new(),
                banned: BTreeMap::new(),
                strangers,
                pending: BTreeMap::new(),
                removed: BTreeSet::new(),
                visits: BTreeMap::new(),
                leaving: BTreeMap::new(),
            }),
        }
    }

    pub(crate) fn set_members(&self, members: BTreeSet<PeerId>) {
        let mut state = self.state.lock();
        state.members = members;
    }

    pub(crate) fn set_removed(&self, removed: BTreeSet<PeerId>) {
        let mut state = self.state.lock();
        state.visits.retain(|peer, _| removed.contains(peer));
        state.removed = removed;
    }

    pub(crate) fn set_strangers(&self, strangers: Strangers) {
        self.state.lock().strangers = strangers;
    }

    pub(crate) fn is_member(&self, peer: &PeerId) -> bool {
        self.state.lock().members.contains(peer)
    }

    /// Whether `peer` may have connection `id`; a stranger takes a place until [`Gate::closed`].
    pub(crate) fn admit(
        &self,
        id: ConnectionId,
        peer: &PeerId,
        dialled: Dialled,
        now: Instant,
    ) -> Result<Standing, Refused> {
        let mut state = self.state.lock();
        if state.banned.get(peer).is_some_and(|until| now < *until) {
            return Err(Refused::Banned);
        }
        if state.members.contains(peer) {
            return Ok(Standing::Member);
        }
        if let Some(until) = state.visit(peer, dialled, now) {
            state.leaving.insert(id, until);
            return Ok(Standing::Leaving);
        }
        match (state.strangers, dialled) {
            (Strangers::WeJoin, Dialled::ByUs) => Ok(Standing::Member),
            (Strangers::Allowed, Dialled::ByThem) => {
                if state.pending.len() >= limits::STRANGERS_MAX {
                    return Err(Refused::TooManyStrangers);
                }
                state.pending.insert(id, now + limits::STRANGER_TIME);
                Ok(Standing::Stranger)
            }
            _ => Err(Refused::NotMember),
        }
    }

    /// Whether the connection is a stranger's.
    pub(crate) fn is_pending(&self, id: &ConnectionId) -> bool {
        self.state.lock().pending.contains_key(id)
    }

    /// Whether the connection is a removed device's.
    pub(crate) fn is_leaving(&self, id: &ConnectionId) -> bool {
        self.state.lock().leaving.contains_key(id)
    }

    /// The connection is gone.
    pub(crate) fn closed(&self, id: &ConnectionId) {
        let mut state = self.state.lock();
        state.pending.remove(id);
        state.leaving.remove(id);
    }

    /// Strangers and removed devices whose time is over, and members' connections that were opened as such.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<ConnectionId> {
        let state = self.state.lock();
        let all = state.pending.iter().chain(&state.leaving);
        all.filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect()
    }

    /// Keeps `peer` out until `until`.
    pub(crate) fn ban(&self, peer: PeerId, until: Instant) {
        let mut state = self.state.lock();
        if state.banned.len() >= limits::BANNED_PEERS_MAX {
            let soonest = state.banned.iter().min_by_key(|(_, until)| **until).map(|(p, _)| *p);
            if let Some(peer) = soonest {
                state.banned.remove(&peer);
            }
        }
        state.banned.insert(peer, until);
    }
}

impl State {
    /// The end of a removed device's visit, if it may come in.
    fn visit(&mut self, peer: &PeerId, dialled: Dialled, now: Instant) -> Option<Instant> {
        if dialled == Dialled::ByUs || !self.removed.contains(peer) {
            return None;
        }
        if let Some(until) = self.visits.get(peer) {
            if now < *until {
                return Some(*until);
            }
            let pause = limits::LEAVING_INTERVAL.saturating_sub(limits::LEAVING_TIME);
            if now < *until + pause {
                return None;
            }
        }
        if self.visits.values().filter(|until| now < **until).count() >= limits::LEAVING_MAX {
            return None;
        }
        let until = now + limits::LEAVING_TIME;
        self.visits.insert(*peer, until);
        Some(until)
    }
}

/// Which end opened a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialled {
    ByUs,
    ByThem,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_in_only_while_invitations_are_open_and_only_a_few() {
        let gate = Gate::new(Strangers::Refused);
        let now = Instant::now();
        let id = ConnectionId::new_unchecked;
        assert_eq!(
            gate.admit(id(0), &PeerId::random(), Dialled::ByThem, now),
            Err(Refused::NotMember)
        );
        gate.set_strangers(Strangers::Allowed);
        for n in 0..limits::STRANGERS_MAX {
            assert_eq!(
                gate.admit(id(n), &PeerId::random(), Dialled::ByThem, now),
                Ok(Standing::Stranger)
            );
        }
        let one_more = gate.admit(id(99), &PeerId::random(), Dialled::ByThem, now);
        assert_eq!(one_more, Err(Refused::TooManyStrangers));
        gate.closed(&id(0));
        assert!(gate.admit(id(100), &PeerId::random(), Dialled::ByThem, now).is_ok());
        assert!(gate.overdue(now).is_empty());
        assert_eq!(gate.overdue(now + limits::STRANGER_TIME).len(), limits::STRANGERS_MAX);
    }

    #[test]
    fn a_removed_device_comes_in_once_in_a_while_and_for_a_minute() {
        let gate = Gate::new(Strangers::Refused);
        let peers: Vec<PeerId> = (0..=limits::LEAVING_MAX).map(|_| PeerId::random()).collect();
        let (now, id) = (Instant::now(), ConnectionId::new_unchecked);
        let comes = |n: usize, at, by| gate.admit(id(n), &peers[n], by, at);
        assert_eq!(comes(0, now, Dialled::ByThem), Err(Refused::NotMember));
        gate.set_removed(peers.iter().copied().collect());
        assert_eq!(comes(0, now, Dialled::ByUs), Err(Refused::NotMember));
        for n in 0..limits::LEAVING_MAX {
            assert_eq!(comes(n, now, Dialled::ByThem), Ok(Standing::Leaving));
            assert!(gate.is_leaving(&id(n)));
        }
        let crowd = comes(limits::LEAVING_MAX, now, Dialled::ByThem);
        assert_eq!(crowd, Err(Refused::NotMember));
        // Another connection lengthens nothing.
        assert_eq!(
            comes(0, now + limits::LEAVING_TIME / 2, Dialled::ByThem),
            Ok(Standing::Leaving)
        );
        assert!(gate.overdue(now).is_empty());
        assert_eq!(gate.overdue(now + limits::LEAVING_TIME).len(), limits::LEAVING_MAX);
        gate.closed(&id(0));
        assert!(!gate.is_leaving(&id(0)));
        let again = comes(0, now + limits::LEAVING_TIME, Dialled::ByThem);
        assert_eq!(again, Err(Refused::NotMember));
        let later = comes(0, now + limits::LEAVING_INTERVAL, Dialled::ByThem);
        assert_eq!(later, Ok(Standing::Leaving));
    }

    #[test]
    fn a_banned_member_is_kept_out_until_its_time_is_over() {
        let gate = Gate::new(Strangers::Refused);
        let peer = PeerId::random();
        let now = Instant::now();
        gate.set_members(BTreeSet::from([peer]));
        gate.ban(peer, now + limits::BAN_MIN);
        let id = ConnectionId::new_unchecked(1);
        assert_eq!(gate.admit(id, &peer, Dialled::ByUs, now), Err(Refused::Banned));
        assert!(gate.admit(id, &peer, Dialled::ByUs, now + limits::BAN_MIN).is_ok());
    }
}
