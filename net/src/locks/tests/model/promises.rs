//! What every state of a search must keep to: L1 to L6 and L8 of the list of invariants.
//!
//! Leaves out: how states come about ([`super`]); L7, which is the journal's; L9 is kept by clocks that are of no use at
//! all.

use super::*;

pub(super) const L1: &str = "L1: two locks that everybody has granted never exclude each other";
pub(super) const ONE_PROMISE: &str = "L1: one device's grant never counts for two";
pub(super) const L2: &str = "L2: of two that are connected never both hold it, once all is said";
pub(super) const L3: &str = "L3: nobody believes in a lock that it slept on";
pub(super) const L4: &str = "L4: what a crashed device held is free after the lease";
pub(super) const L6: &str = "L6: of many at once exactly one gets it, if nothing is lost";
pub(super) const BOUNDED: &str = "L5: a claim is decided in its time";
pub(super) const L8: &str =
    "L8: when all is said everybody knows who holds it, and nobody who does not";

/// All of them.
pub(super) fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(L1, |_, world: &World| {
            let whole = |belief: &Belief| belief.unreachable == 0;
            !world.clashes().iter().any(|(_, a, _, b)| whole(a) && whole(b))
        }),
        Property::always(ONE_PROMISE, |_, world: &World| {
            // Nor does a grantor hold it itself, unless it was another run of it that granted.
            let granted = |belief: &Belief, host: usize, by: usize| {
                let known = world.hosts[host].table.incarnation_of(&device(by));
                belief.granted.contains(&device(by)) && known == Some(world.hosts[by].runs)
            };
            !world.clashes().iter().any(|(a, first, b, second)| {
                first.granted.intersection(&second.granted).next().is_some()
                    || granted(first, *a, *b)
                    || granted(second, *b, *a)
            })
        }),
        Property::always(L2, |_, world: &World| {
            !world
                .clashes()
                .iter()
                .any(|(a, _, b, _)| world.have_met(*a, *b) && !world.is_under_way(*a, *b))
        }),
        Property::always(L3, |_, world: &World| {
            world.hosts.iter().enumerate().all(|(n, host)| {
                let beliefs = host.table.beliefs(world.now(n));
                host.body != Body::Awake
                    || beliefs.iter().all(|belief| !host.slept_on.contains(&belief.id))
            })
        }),
        Property::always(L4, |bounds: &Bounds, world: &World| {
            let free_after_ms = limits::LOCK_LEASE_MS + limits::LOCK_LEASE_MS / 50;
            (0..DEVICES).all(|dead| {
                let Body::Dead(since_ms) = world.hosts[dead].body else { return true };
                (0..DEVICES).filter(|host| world.is_awake(*host)).all(|host| {
                    // What it sent before it died may arrive much later.
                    let heard_ms = world.last_words.get(&(dead, host)).copied();
                    world.t_ms < heard_ms.unwrap_or(0).max(since_ms) + free_after_ms
                        || !bounds.sees(world, host, dead)
                })
            })
        }),
        Property::always(L6, |bounds: &Bounds, world: &World| {
            let pauses = world.left.pauses < bounds.pauses;
            let faults = [bounds.breaks, bounds.crashes, bounds.sleeps, bounds.connects];
            let faults = faults.iter().any(|faults| *faults > 0);
            if pauses || faults || bounds.releases > 0 || !world.is_silent() {
                return true;
            }
            let beliefs = world.beliefs();
            let claimed: BTreeSet<Scope> =
                world.claimed.iter().map(|(_, what)| what.scope()).collect();
            let names = claimed.iter().all(|scope| matches!(scope, Scope::Name(_)));
            !names
                || claimed.iter().all(|scope| {
                    beliefs.iter().filter(|(_, belief)| belief.scope == *scope).count() == 1
                })
        }),
        Property::always(BOUNDED, |_, world: &World| {
            let mut awake = world.hosts.iter().filter(|host| host.body == Body::Awake);
            awake.all(|host| !host.table.is_overdue())
        }),
        Property::always(L8, |bounds: &Bounds, world: &World| bounds.agree(world)),
        Property::sometimes("held whole", |_, world: &World| {
            world.beliefs().iter().any(|(_, belief)| belief.unreachable == 0)
        }),
    ]
}

impl Bounds {
    fn sees(&self, world: &World, host: usize, holder: usize) -> bool {
        self.known(world, host).values().any(|seen| *seen == holder)
    }

    fn known(&self, world: &World, host: usize) -> BTreeMap<u8, usize> {
        let mut known = BTreeMap::new();
        for file in [0, 1] {
            let spot = Spot { register: register(file), above: vec![DIR] };
            if let Some(foreign) = world.hosts[host].table.known(world.now(host), &spot) {
                known.insert(file, index(&foreign.device));
            }
        }
        known
    }

    /// Of two that have said everything to each other each knows what the other holds, and nothing that it does not.
    fn agree(&self, world: &World) -> bool {
        let decided = world.hosts.iter().all(|host| host.table.is_decided());
        let unsaid = |host: usize, other: usize| {
            world.is_under_way(host, other) || !world.have_met(host, other)
        };
        let holds = |host: usize, file: u8| {
            let spot = Spot { register: register(file), above: vec![DIR] };
            world.hosts[host].table.held(world.now(host), &spot).is_some()
        };
        !decided
            || (0..DEVICES).all(|host| {
                let known = self.known(world, host);
                (0..DEVICES).filter(|other| *other != host).all(|other| {
                    [0, 1].into_iter().all(|file| {
                        let seen = known.get(&file).copied();
                        unsaid(host, other)
                            || match holds(other, file) {
                                // Of several it tells one.
                                true => seen.is_some() || holds(host, file),
                                false => seen != Some(other),
                            }
                    })
                })
            })
    }
}
