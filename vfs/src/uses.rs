//! Which session locks this device needs, and while which processes use what they cover (DESIGN 7).
//!
//! Pure: time and the question whether a process lives are arguments.
//!
//! Leaves out: asking the others ([`crate::traits::Locks`]), which calls need a lock ([`crate::fs`]).
//!
//! Invariants:
//! - a lock is used while a file under its name is open for writing, or a process that changed something under it lives
//!   and did so within its idle time. Only editors have any, for the documents people work on in them: a program that has
//!   closed a file and lives on (a shell, a script, a file manager) keeps nobody out;
//! - a lock for all below a directory lasts no longer than the burst it was taken for, whatever is open: then the names that
//!   are open have locks of their own. Nothing is ever taken for the whole drive;
//! - what was lost or refused while it is still used is wanted again ([`Uses::unheld`]);
//! - at most [`USES_MAX`] are kept; beyond that nothing more is taken, and the base rule alone keeps work apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use journal::id::DirId;
use journal::name::Register;

use crate::process::{Process, ProcessId, Program};
use crate::traits::{Scope, Spot};

/// Locks in use at one time.
pub(crate) const USES_MAX: usize = 4_096;
/// Directories whose claims are counted.
const BURSTS_MAX: usize = 4_096;
/// Claims in a directory within [`BURST_MS`] after which the next is for all below it.
const BURST_CLAIMS: usize = 8;
/// Milliseconds in which they are counted.
const BURST_MS: u64 = 4_000;
/// After a refusal names in a directory are claimed one by one for this long, milliseconds.
const SINGLE_MS: u64 = 10_000;
/// How long after its last use a lock for all below a directory is kept, milliseconds.
const BELOW_IDLE_MS: u64 = 200;
/// How long a living editor keeps the lock of a document it has written without touching it, milliseconds.
const EDITOR_IDLE_MS: u64 = 12 * 3_600_000;

/// All locks in use, and the documents editors have open.
#[derive(Default)]
pub(crate) struct Uses {
    uses: HashMap<Scope, Use>,
    bursts: HashMap<DirId, Burst>,
    /// Documents that editors have opened.
    open: HashMap<Register, BTreeSet<ProcessId>>,
    /// Counts what calls do with locks.
    turn: u64,
}

#[derive(Default)]
struct Use {
    processes: BTreeMap<Option<ProcessId>, Touch>,
    /// Calls that have it and are about to open a handle for writing.
    opening: u32,
    /// Calls that ask for it now: until they know, it is not given back.
    asking: u32,
    /// It is ours, or on its way to be.
    held: bool,
    /// When a call did something with it last ([`Uses::turn`]).
    turn: u64,
    /// Somebody took it away: what is saved under it stands beside the official version.
    broken: bool,
}

#[derive(Clone, Copy)]
struct Touch {
    last_ms: u64,
    idle_ms: u64,
}

impl Touch {
    const NEVER: Self = Self { last_ms: 0, idle_ms: 0 };
}

/// What a process does under a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// It opens a handle for writing: until [`Uses::opened`] the file is not open yet.
    Opens(About),
    /// It has a handle for writing open.
    HasOpen(About),
    /// It puts another file under the name.
    Renamed(About),
    /// It takes the name away, or something of the kind.
    Other,
}

/// What a name is the name of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// Something people work on in editors.
    Document,
    /// Anything else.
    Other,
}

#[derive(Default)]
struct Burst {
    claims_ms: Vec<u64>,
    single_until_ms: u64,
}

/// What is not used any more.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) scopes: Vec<Scope>,
    /// Documents no editor has open.
    pub(crate) closed: Vec<Register>,
}

impl Uses {
    /// Whether nothing is used.
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.open.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.uses.len() >= USES_MAX
    }

    /// The lock that covers a name.
    pub(crate) fn covering(&self, spot: &Spot) -> Option<Scope> {
        let below = || spot.above.iter().map(|dir| Scope::Below(*dir)).find(|s| self.holds(s));
        self.own_of(spot).or_else(below)
    }

    /// The lock of a name itself.
    pub(crate) fn own_of(&self, spot: &Spot) -> Option<Scope> {
        Some(Scope::Name(spot.register.clone())).filter(|scope| self.holds(scope))
    }

    fn holds(&self, scope: &Scope) -> bool {
        self.uses.get(scope).is_some_and(|used| used.held)
    }

    /// Whether a lock is used, or asked for now.
    pub(crate) fn is_wanted(&self, scope: &Scope) -> bool {
        self.uses.get(scope).is_some_and(|used| used.held || used.asking > 0)
    }

    /// Names whose lock is used and not ours.
    pub(crate) fn unheld(&self) -> Vec<Register> {
        let wanted = |(scope, used): (&Scope, &Use)| match scope {
            Scope::Name(register) if !used.held && used.asking == 0 => {
                (!used.processes.is_empty()).then(|| register.clone())
            }
            _ => None,
        };
        self.uses.iter().filter_map(wanted).collect()
    }

    /// A call asks for a lock, until [`Uses::asked`].
    pub(crate) fn asks(&mut self, scope: &Scope) {
        let used = self.uses.entry(scope.clone()).or_default();
        used.asking = used.asking.saturating_add(1);
    }

    /// It knows.
    pub(crate) fn asked(&mut self, scope: &Scope) {
        let Some(used) = self.uses.get_mut(scope) else { return };
        used.asking = used.asking.saturating_sub(1);
        let idle = used.asking == 0 && used.opening == 0 && used.processes.is_empty();
        if idle && !used.held {
            self.uses.remove(scope);
        }
    }

    /// What to claim for a name that no lock in use covers.
    pub(crate) fn wanted(&mut self, now_ms: u64, spot: &Spot) -> Scope {
        let mut scope = Scope::Name(spot.register.clone());
        for dir in &spot.above {
            // Whatever happens in it is no reason to keep others out of the whole drive.
            if *dir == DirId::ROOT || !self.claims_too_many(now_ms, *dir) {
                break;
            }
            scope = Scope::Below(*dir);
        }
        scope
    }

    /// Counts a claim in a directory; whether there were so many that it should be for all below.
    fn claims_too_many(&mut self, now_ms: u64, dir: DirId) -> bool {
        if self.bursts.len() >= BURSTS_MAX {
            self.bursts.retain(|_, burst| {
                now_ms < burst.single_until_ms
                    || burst.claims_ms.iter().any(|at| now_ms.saturating_sub(*at) < BURST_MS)
            });
            if self.bursts.len() >= BURSTS_MAX {
                return false;
            }
        }
        let burst = self.bursts.entry(dir).or_default();
        burst.claims_ms.retain(|at| now_ms.saturating_sub(*at) < BURST_MS);
        if now_ms < burst.single_until_ms {
            return false;
        }
        let many = burst.claims_ms.len() >= BURST_CLAIMS;
        if !many {
            burst.claims_ms.push(now_ms);
        }
        many
    }

    /// A lock for all below a directory was refused.
    pub(crate) fn refused_below(&mut self, now_ms: u64, dir: DirId) {
        let burst = self.bursts.entry(dir).or_default();
        burst.single_until_ms = now_ms.saturating_add(SINGLE_MS);
    }

    /// A process changes something under a lock that is held or asked for. Whether it is the first time.
    pub(crate) fn touch(
        &mut self,
        now_ms: u64,
        scope: &Scope,
        by: Option<Process>,
        change: Change,
    ) -> bool {
        let editor = by.is_some_and(|process| process.program == Program::Editor);
        let idle_ms = match (scope, change) {
            (Scope::Below(_), _) => BELOW_IDLE_MS,
            (_, Change::Opens(About::Document))
            | (_, Change::HasOpen(About::Document))
            | (_, Change::Renamed(About::Document))
                if editor =>
            {
                EDITOR_IDLE_MS
            }
            _ => 0,
        };
        self.turn += 1;
        let used = self.uses.entry(scope.clone()).or_default();
        used.turn = self.turn;
        let id = by.map(|process| process.id);
        let first = !used.processes.contains_key(&id);
        let touch = used.processes.entry(id).or_insert(Touch::NEVER);
        *touch = Touch { last_ms: now_ms, idle_ms: touch.idle_ms.max(idle_ms) };
        used.held = true;
        if matches!(change, Change::Opens(_)) {
            used.opening = used.opening.saturating_add(1);
        }
        first
    }

    /// An editor's document has been published under a name of which it has no lock yet.
    pub(crate) fn keep_for(&mut self, now_ms: u64, register: &Register, editor: ProcessId) {
        if self.is_full() {
            return;
        }
        let used = self.uses.entry(Scope::Name(register.clone())).or_default();
        let touch = Touch { last_ms: now_ms, idle_ms: EDITOR_IDLE_MS };
        used.processes.insert(Some(editor), touch);
    }

    /// A process is done with a document.
    pub(crate) fn done(&mut self, register: &Register, by: ProcessId) {
        if let Some(used) = self.uses.get_mut(&Scope::Name(register.clone())) {
            used.processes.remove(&Some(by));
        }
    }

    /// A call that was about to open a handle for writing is over.
    pub(crate) fn opened(&mut self, now_ms: u64, scope: &Scope) {
        self.turn += 1;
        if let Some(used) = self.uses.get_mut(scope) {
            used.turn = self.turn;
            used.opening = used.opening.saturating_sub(1);
            for touch in used.processes.values_mut() {
                touch.last_ms = now_ms;
            }
        }
    }

    /// Locks for all below a directory end now.
    pub(crate) fn end_bursts(&mut self) {
        for (scope, used) in &mut self.uses {
            if matches!(scope, Scope::Below(_)) {
                used.processes.clear();
            }
        }
    }

    /// The lock is somebody else's, or nobody's.
    pub(crate) fn lost(&mut self, scope: &Scope) {
        if let Some(used) = self.uses.get_mut(scope) {
            used.held = false;
        }
    }

    /// Somebody took the lock of a name away from those who use it.
    pub(crate) fn break_it(&mut self, register: &Register) {
        let used = self.uses.entry(Scope::Name(register.clone())).or_default();
        (used.broken, used.held) = (true, false);
    }

    /// Whether it was taken away and is still used.
    pub(crate) fn is_broken(&self, spot: &Spot) -> bool {
        self.uses.get(&Scope::Name(spot.register.clone())).is_some_and(|used| used.broken)
    }

    /// An editor opened a document; whether it is the first.
    pub(crate) fn editor_opened(&mut self, register: &Register, by: ProcessId) -> bool {
        if self.open.len() >= USES_MAX && !self.open.contains_key(register) {
            return false;
        }
        let by_whom = self.open.entry(register.clone()).or_default();
        by_whom.insert(by) && by_whom.len() == 1
    }

    /// The processes that use something.
    pub(crate) fn processes(&self) -> BTreeSet<ProcessId> {
        let users = self.uses.values().flat_map(|used| used.processes.keys().flatten());
        users.chain(self.open.values().flatten()).copied().collect()
    }

    /// Changes whenever a call does something with a lock.
    pub(crate) fn turn(&self) -> u64 {
        self.turn
    }

    /// Lets go of what is not used any more; `open` are the names of files that were open for writing at or after `turn`.
    pub(crate) fn take_ended(
        &mut self,
        now_ms: u64,
        (turn, open): (u64, &BTreeSet<Register>),
        alive: impl Fn(ProcessId) -> bool,
    ) -> Ended {
        let mut living: HashMap<ProcessId, bool> = HashMap::new();
        let mut lives = |id: ProcessId| *living.entry(id).or_insert_with(|| alive(id));
        let mut ended = Ended::default();
        self.uses.retain(|scope, used| {
            let is_open = matches!(scope, Scope::Name(register) if open.contains(register));
            used.processes.retain(|process, touch| {
                if is_open {
                    touch.last_ms = now_ms;
                }
                let idle = now_ms.saturating_sub(touch.last_ms) >= touch.idle_ms;
                !idle && process.is_none_or(&mut lives)
            });
            let calls = used.asking > 0 || used.opening > 0 || used.turn > turn;
            let stays = calls || is_open || !used.processes.is_empty();
            if !stays && used.held {
                ended.scopes.push(scope.clone());
            }
            stays
        });
        self.open.retain(|register, by| {
            by.retain(|process| lives(*process));
            if by.is_empty() {
                ended.closed.push(register.clone());
            }
            !by.is_empty()
        });
        ended.scopes.sort();
        ended.closed.sort();
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: DirId = DirId::ROOT;

    fn dir(n: u8) -> DirId {
        DirId::from_bytes([n; 32])
    }

    fn spot(name: &str, above: &[DirId]) -> Spot {
        Spot { register: Register::new(above[0], name.parse().unwrap()), above: above.to_vec() }
    }

    fn process(tgid: u32, program: Program) -> Option<Process> {
        Some(Process { id: ProcessId { tgid, start: 1 }, program })
    }

    fn ended(
        uses: &mut Uses,
        now_ms: u64,
        open: &[&str],
        alive: impl Fn(ProcessId) -> bool,
    ) -> Ended {
        let open: BTreeSet<Register> =
            open.iter().map(|name| spot(name, &[ROOT]).register).collect();
        let turn = uses.turn();
        uses.take_ended(now_ms, (turn, &open), alive)
    }

    #[test]
    fn a_lock_is_used_while_a_file_is_open_or_somebody_has_the_document_in_memory() {
        let scope = Scope::Name(spot("a", &[ROOT]).register);
        let (opens, renamed) = (Change::Opens, Change::Renamed);
        let (document, other) = (About::Document, About::Other);
        for (program, change, kept_ms) in [
            (Program::Editor, opens(document), EDITOR_IDLE_MS),
            (Program::Editor, opens(other), 0),
            (Program::Other, opens(document), 0),
            (Program::Editor, renamed(document), EDITOR_IDLE_MS),
            (Program::Other, renamed(document), 0),
            (Program::Other, renamed(other), 0),
            (Program::Editor, Change::Other, 0),
        ] {
            let mut uses = Uses::default();
            uses.touch(0, &scope, process(1, program), change);
            let mut kept_ms = kept_ms;
            if matches!(change, Change::Opens(_)) {
                assert!(ended(&mut uses, 5, &[], |_| true).scopes.is_empty(), "about to be open");
                uses.opened(6, &scope);
                assert!(ended(&mut uses, 10, &["a"], |_| true).scopes.is_empty(), "open");
                kept_ms += if kept_ms > 0 { 10 } else { 0 };
            }
            if kept_ms > 0 {
                let left = ended(&mut uses, kept_ms - 1, &[], |_| true).scopes;
                assert!(left.is_empty(), "{change:?}");
            }
            let left = ended(&mut uses, kept_ms.max(10), &[], |_| true).scopes;
            assert_eq!(left, std::slice::from_ref(&scope), "{change:?}");
            assert!(uses.is_empty());
        }
        let mut uses = Uses::default();
        uses.touch(0, &scope, process(1, Program::Editor), renamed(document));
        uses.touch(1, &scope, process(1, Program::Editor), Change::Other);
        let left = ended(&mut uses, 2, &[], |_| true).scopes;
        assert!(left.is_empty(), "what it was kept for still holds");
        assert_eq!(ended(&mut uses, 2, &[], |_| false).scopes, [scope], "it has ended");
    }

    #[test]
    fn what_began_after_the_look_at_open_files_has_not_ended() {
        let scope = Scope::Name(spot("a", &[ROOT]).register);
        let mut uses = Uses::default();
        let turn = uses.turn();
        uses.touch(0, &scope, process(1, Program::Other), Change::Opens(About::Other));
        uses.opened(1, &scope);
        assert!(uses.take_ended(2, (turn, &BTreeSet::new()), |_| true).scopes.is_empty());
        assert_eq!(ended(&mut uses, 3, &[], |_| true).scopes, [scope]);
    }

    #[test]
    fn what_is_lost_while_it_is_used_is_wanted_again() {
        let at = spot("a", &[ROOT]);
        let scope = Scope::Name(at.register.clone());
        let mut uses = Uses::default();
        uses.touch(0, &scope, process(1, Program::Editor), Change::Renamed(About::Document));
        uses.lost(&scope);
        assert_eq!((uses.covering(&at), uses.unheld()), (None, vec![at.register.clone()]));
        uses.touch(1, &scope, process(1, Program::Editor), Change::HasOpen(About::Document));
        assert_eq!((uses.covering(&at), uses.unheld()), (Some(scope.clone()), vec![]));
        // Not ours, and not used: nothing is given back.
        uses.lost(&scope);
        assert!(ended(&mut uses, 2, &[], |_| false).scopes.is_empty() && uses.is_empty());
        // Published by an editor before anybody asked.
        uses.keep_for(0, &at.register, ProcessId { tgid: 1, start: 1 });
        assert_eq!(uses.unheld(), std::slice::from_ref(&at.register));
        uses.done(&at.register, ProcessId { tgid: 1, start: 1 });
        assert_eq!(uses.unheld(), []);
    }

    #[test]
    fn a_lock_below_a_directory_ends_with_its_burst_whatever_is_open() {
        let at = spot("a", &[dir(1), ROOT]);
        let mut uses = Uses::default();
        uses.touch(
            0,
            &Scope::Below(dir(1)),
            process(1, Program::Other),
            Change::Opens(About::Other),
        );
        uses.opened(1, &Scope::Below(dir(1)));
        assert!(ended(&mut uses, BELOW_IDLE_MS, &["a"], |_| true).scopes.is_empty());
        let left = ended(&mut uses, 1 + BELOW_IDLE_MS, &["a"], |_| true).scopes;
        assert_eq!(left, [Scope::Below(dir(1))]);
        assert_eq!(uses.covering(&at), None);
    }

    #[test]
    fn many_claims_in_a_directory_become_one_for_all_below_and_many_such_one_above() {
        let mut uses = Uses::default();
        let mut below = 0;
        for d in 1..=20 {
            let above = [dir(d), dir(100), ROOT];
            let mut scopes = Vec::new();
            for n in 0..20 {
                let at = spot(&format!("{n}"), &above);
                if uses.covering(&at).is_some() {
                    continue;
                }
                let scope = uses.wanted(u64::from(d), &at);
                uses.touch(u64::from(d), &scope, None, Change::Other);
                scopes.push(scope);
            }
            if scopes.last() == Some(&Scope::Below(dir(d))) {
                assert_eq!(scopes.len(), BURST_CLAIMS + 1);
                below += 1;
            }
        }
        assert_eq!(below, BURST_CLAIMS, "then the folder above is claimed");
        assert!(uses.uses.contains_key(&Scope::Below(dir(100))));
        // All of it ends soon after its last use.
        ended(&mut uses, 20 + BELOW_IDLE_MS, &[], |_| true);
        assert!(!uses.uses.keys().any(|scope| matches!(scope, Scope::Below(_))));
        // Slow work never claims more than names, and neither does work beside somebody else's, or in the top directory.
        let mut slow = Uses::default();
        for n in 0..20 {
            let at = spot(&format!("{n}"), &[dir(1), ROOT]);
            assert!(matches!(slow.wanted(n * BURST_MS / 8, &at), Scope::Name(_)));
        }
        let mut beside = Uses::default();
        beside.refused_below(0, dir(1));
        let mut top = Uses::default();
        for n in 0..20 {
            let at = spot(&format!("{n}"), &[dir(1), ROOT]);
            assert!(matches!(beside.wanted(n, &at), Scope::Name(_)));
            let at = spot(&format!("{n}"), &[ROOT]);
            assert!(matches!(top.wanted(n, &at), Scope::Name(_)));
        }
    }

    #[test]
    fn a_lock_that_is_asked_for_covers_nothing_and_is_not_given_back() {
        let mut uses = Uses::default();
        let at = spot("a", &[ROOT]);
        let scope = Scope::Name(at.register.clone());
        uses.asks(&scope);
        assert_eq!((uses.covering(&at), uses.is_wanted(&scope)), (None, true));
        assert!(ended(&mut uses, 1, &[], |_| false).scopes.is_empty());
        // Refused: nothing is left of it.
        uses.asked(&scope);
        assert!(!uses.is_wanted(&scope) && ended(&mut uses, 1, &[], |_| false).scopes.is_empty());
        // Held, and another call asks while the first has ended.
        uses.touch(0, &scope, process(1, Program::Other), Change::Other);
        uses.asks(&scope);
        assert!(ended(&mut uses, 1, &[], |_| false).scopes.is_empty());
        uses.touch(1, &scope, process(2, Program::Other), Change::Other);
        uses.asked(&scope);
        assert_eq!(uses.covering(&at), Some(scope.clone()));
        assert_eq!(ended(&mut uses, 1, &[], |_| true).scopes, [scope]);
    }

    #[test]
    fn a_broken_lock_stays_broken_until_nobody_uses_it() {
        let mut uses = Uses::default();
        let at = spot("a", &[dir(1), ROOT]);
        let scope = Scope::Name(at.register.clone());
        for cover in [scope.clone(), Scope::Below(dir(1))] {
            uses.touch(0, &cover, process(1, Program::Editor), Change::Renamed(About::Document));
            assert!(!uses.is_broken(&at));
            uses.break_it(&at.register);
            assert!(uses.is_broken(&at));
            uses.take_ended(1_000, (uses.turn(), &[at.register.clone()].into()), |_| false);
            assert!(uses.is_broken(&at), "still open");
            uses.take_ended(2_000, (uses.turn(), &BTreeSet::new()), |_| false);
            assert!(!uses.is_broken(&at));
        }
    }

    #[test]
    fn a_document_is_open_until_its_last_editor_ends() {
        let mut uses = Uses::default();
        let at = spot("a", &[ROOT]).register;
        let (one, two) = (ProcessId { tgid: 1, start: 1 }, ProcessId { tgid: 2, start: 1 });
        assert!(uses.editor_opened(&at, one));
        assert!(!uses.editor_opened(&at, one));
        assert!(!uses.editor_opened(&at, two));
        assert!(ended(&mut uses, 1, &[], |id| id == two).closed.is_empty());
        assert_eq!(ended(&mut uses, 1, &[], |_| false).closed, [at]);
    }
}
