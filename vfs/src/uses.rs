//! Which session locks this device needs, and while which processes use what they cover (DESIGN 7).
//!
//! Pure: time and the question whether a process lives are arguments.
//!
//! Leaves out: asking the others ([`crate::traits::Locks`]), which calls need a lock ([`crate::fs`]).
//!
//! Invariants:
//! - a lock is used while a handle for writing under it is open, or a process that changed something under it lives and
//!   did so within its idle time. Only editors have any, for the documents people work on in them: a program that has
//!   closed a file and lives on (a shell, a script, a file manager) keeps nobody out;
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
const BURST_MS: u64 = 1_000;
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
}

#[derive(Default)]
struct Use {
    processes: BTreeMap<Option<ProcessId>, Touch>,
    /// Open handles for writing.
    handles: u32,
    /// Calls that ask for it now: until they know, it is not given back, and covers nothing.
    asking: u32,
    /// Somebody took it away: what is saved under it stands beside the official version.
    broken: bool,
}

impl Use {
    fn is_used(&self) -> bool {
        self.handles > 0 || !self.processes.is_empty()
    }
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
    /// It opens a handle for writing, which is open until [`Uses::closed`].
    Opened(About),
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
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.open.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.uses.len() >= USES_MAX
    }

    /// The lock in use that covers a name.
    pub(crate) fn covering(&self, spot: &Spot) -> Option<Scope> {
        let covers = |scope: &Scope| self.uses.get(scope).is_some_and(Use::is_used);
        let name = Scope::Name(spot.register.clone());
        if covers(&name) {
            return Some(name);
        }
        spot.above.iter().map(|dir| Scope::Below(*dir)).find(covers)
    }

    /// Whether a lock is used, or asked for now.
    pub(crate) fn is_wanted(&self, scope: &Scope) -> bool {
        self.uses.contains_key(scope)
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
        if used.asking == 0 && !used.is_used() {
            self.uses.remove(scope);
        }
    }

    /// What to claim for a name that no lock in use covers.
    pub(crate) fn wanted(&mut self, now_ms: u64, spot: &Spot) -> Scope {
        let mut scope = Scope::Name(spot.register.clone());
        for dir in &spot.above {
            // Work in many folders is no reason to keep others out of the whole drive.
            let whole_drive = *dir == DirId::ROOT && scope != Scope::Name(spot.register.clone());
            if whole_drive || !self.claims_too_many(now_ms, *dir) {
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
            (_, Change::Opened(About::Document) | Change::Renamed(About::Document)) if editor => {
                EDITOR_IDLE_MS
            }
            _ => 0,
        };
        let used = self.uses.entry(scope.clone()).or_default();
        let id = by.map(|process| process.id);
        let first = !used.processes.contains_key(&id);
        let touch = used.processes.entry(id).or_insert(Touch::NEVER);
        *touch = Touch { last_ms: now_ms, idle_ms: touch.idle_ms.max(idle_ms) };
        if matches!(change, Change::Opened(_)) {
            used.handles = used.handles.saturating_add(1);
        }
        first
    }

    /// A handle that was opened for writing under a lock is closed.
    pub(crate) fn closed(&mut self, now_ms: u64, scope: &Scope) {
        if let Some(used) = self.uses.get_mut(scope) {
            used.handles = used.handles.saturating_sub(1);
            for touch in used.processes.values_mut() {
                touch.last_ms = now_ms;
            }
        }
    }

    /// Locks for all below a directory are kept no longer than their handles are open.
    pub(crate) fn end_bursts(&mut self) {
        for (scope, used) in &mut self.uses {
            if matches!(scope, Scope::Below(_)) {
                used.processes.clear();
            }
        }
    }

    /// The lock is held no more: whoever changes something under it next asks for it again.
    pub(crate) fn forget(&mut self, scope: &Scope) {
        self.uses.remove(scope);
    }

    /// Somebody took the lock of a name away from those who use it.
    pub(crate) fn break_it(&mut self, scope: &Scope) {
        if let Some(used) = self.uses.get_mut(scope) {
            used.broken = true;
        }
    }

    /// Whether it was taken away and is still used.
    pub(crate) fn is_broken(&self, spot: &Spot) -> bool {
        let covering = self.covering(spot);
        covering.and_then(|scope| self.uses.get(&scope)).is_some_and(|used| used.broken)
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

    /// Lets go of what is not used any more.
    pub(crate) fn take_ended(&mut self, now_ms: u64, alive: impl Fn(ProcessId) -> bool) -> Ended {
        let mut living: HashMap<ProcessId, bool> = HashMap::new();
        let mut lives = |id: ProcessId| *living.entry(id).or_insert_with(|| alive(id));
        let mut ended = Ended::default();
        self.uses.retain(|scope, used| {
            used.processes.retain(|process, touch| {
                now_ms.saturating_sub(touch.last_ms) < touch.idle_ms
                    && process.is_none_or(&mut lives)
            });
            let stays = used.asking > 0 || used.is_used();
            if !stays {
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

    #[test]
    fn a_lock_is_used_while_a_handle_is_open_or_somebody_has_the_document_in_memory() {
        let scope = Scope::Name(spot("a", &[ROOT]).register);
        let (opened, renamed) = (Change::Opened, Change::Renamed);
        let (document, other) = (About::Document, About::Other);
        for (program, change, kept_ms) in [
            (Program::Editor, opened(document), EDITOR_IDLE_MS),
            (Program::Editor, opened(other), 0),
            (Program::Other, opened(document), 0),
            (Program::Editor, renamed(document), EDITOR_IDLE_MS),
            (Program::Other, renamed(document), 0),
            (Program::Other, renamed(other), 0),
            (Program::Editor, Change::Other, 0),
        ] {
            let mut uses = Uses::default();
            uses.touch(0, &scope, process(1, program), change);
            if matches!(change, Change::Opened(_)) {
                assert!(uses.take_ended(5, |_| true).scopes.is_empty(), "a handle is open");
                uses.closed(10, &scope);
            }
            let kept_ms = kept_ms + if matches!(change, Change::Opened(_)) { 10 } else { 0 };
            if kept_ms > 10 {
                assert!(uses.take_ended(kept_ms - 1, |_| true).scopes.is_empty(), "{change:?}");
            }
            assert_eq!(
                uses.take_ended(kept_ms, |_| true).scopes,
                std::slice::from_ref(&scope),
                "{change:?}"
            );
            assert!(uses.is_empty());
        }
        let mut uses = Uses::default();
        uses.touch(0, &scope, process(1, Program::Editor), renamed(document));
        uses.touch(1, &scope, process(1, Program::Editor), Change::Other);
        assert!(uses.take_ended(2, |_| true).scopes.is_empty(), "what it was kept for still holds");
        assert_eq!(uses.take_ended(2, |_| false).scopes, [scope], "it has ended");
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
        uses.take_ended(20 + BELOW_IDLE_MS, |_| true);
        assert!(!uses.uses.keys().any(|scope| matches!(scope, Scope::Below(_))));
        // Slow work never claims more than names, and neither does work beside somebody else's.
        let mut slow = Uses::default();
        for n in 0..20 {
            let at = spot(&format!("{n}"), &[ROOT]);
            assert!(matches!(slow.wanted(n * BURST_MS / 8, &at), Scope::Name(_)));
        }
        let mut beside = Uses::default();
        beside.refused_below(0, ROOT);
        for n in 0..20 {
            let at = spot(&format!("{n}"), &[ROOT]);
            assert!(matches!(beside.wanted(n, &at), Scope::Name(_)));
        }
    }

    #[test]
    fn a_lock_that_is_asked_for_covers_nothing_and_is_not_given_back() {
        let mut uses = Uses::default();
        let at = spot("a", &[ROOT]);
        let scope = Scope::Name(at.register.clone());
        uses.asks(&scope);
        assert_eq!((uses.covering(&at), uses.is_wanted(&scope)), (None, true));
        assert!(uses.take_ended(1, |_| false).scopes.is_empty());
        // Refused: nothing is left of it.
        uses.asked(&scope);
        assert!(!uses.is_wanted(&scope) && uses.take_ended(1, |_| false).scopes.is_empty());
        // Held, and another call asks while the first has ended.
        uses.touch(0, &scope, process(1, Program::Other), Change::Other);
        uses.asks(&scope);
        assert!(uses.take_ended(1, |_| false).scopes.is_empty());
        assert_eq!(uses.covering(&at), None);
        uses.touch(1, &scope, process(2, Program::Other), Change::Other);
        uses.asked(&scope);
        assert_eq!(uses.covering(&at), Some(scope.clone()));
        assert_eq!(uses.take_ended(1, |_| true).scopes, [scope]);
    }

    #[test]
    fn a_broken_lock_stays_broken_until_nobody_uses_it() {
        let mut uses = Uses::default();
        let at = spot("a", &[dir(1), ROOT]);
        let scope = Scope::Name(at.register.clone());
        uses.touch(0, &scope, process(1, Program::Editor), Change::Renamed(About::Document));
        assert!(!uses.is_broken(&at));
        uses.break_it(&scope);
        assert!(uses.is_broken(&at));
        uses.take_ended(1, |_| false);
        uses.touch(2, &scope, process(2, Program::Editor), Change::Renamed(About::Document));
        assert!(!uses.is_broken(&at));
    }

    #[test]
    fn a_document_is_open_until_its_last_editor_ends() {
        let mut uses = Uses::default();
        let at = spot("a", &[ROOT]).register;
        let (one, two) = (ProcessId { tgid: 1, start: 1 }, ProcessId { tgid: 2, start: 1 });
        assert!(uses.editor_opened(&at, one));
        assert!(!uses.editor_opened(&at, one));
        assert!(!uses.editor_opened(&at, two));
        assert!(uses.take_ended(1, |id| id == two).closed.is_empty());
        assert_eq!(uses.take_ended(1, |_| false).closed, [at]);
    }
}
