//! `atelier gc`: which contents are needed, by the policy, by whoever uses them, and because no other device has them.
//!
//! Leaves out: the rule ([`journal::retention`]) and the removal ([`cas::Collector`]).
//!
//! Invariants:
//! - contents are named in the order in which they pass on: open and unpublished ones first, published ones last, so
//!   that none slips by;
//! - in a drive with other members a version is let go of only if one of them was known to hold it while it had to;
//!   where there is no other, the policy alone decides;
//! - ending early loses nothing: what was not removed is found again by the next run.

use std::ops::ControlFlow;
use std::path::PathBuf;

use cas::{Content, GcError, Stopped, Sweep, Swept};
use journal::op::Op;
use journal::retention::Rules;
use journal::{
    Arrivals, DeviceId, HistoryVersion, Named, Policy, Reach, Retention, Value, VersionId,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Drive;
use crate::ipc::{GcReport, GcRow, HistoryCost, PolicyRow, Progress, Unit, rfc3339};
use crate::report::Failure;

/// Contents looked at per step.
const WALK_STEP: usize = 1_024;

/// An amount and when it was so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Amount {
    at_ms: u64,
    bytes: u64,
}

/// What is remembered of collections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Known {
    /// What the last one gave back.
    freed: Option<Amount>,
    /// What old versions took beyond what is shown, when that was last counted.
    history: Option<Amount>,
}

/// Remembers collections, across restarts.
pub(super) struct Collected {
    known: Mutex<Known>,
    file: PathBuf,
}

impl Collected {
    pub(super) fn load(dir: &std::path::Path) -> Self {
        let file = dir.join("collected");
        let known = std::fs::read(&file).ok().and_then(|bytes| postcard::from_bytes(&bytes).ok());
        Self { known: Mutex::new(known.unwrap_or_default()), file }
    }

    fn note(&self, freed: Option<Amount>, history: Option<Amount>) {
        let known = {
            let mut known = self.known.lock();
            *known = Known { freed: freed.or(known.freed), history: history.or(known.history) };
            *known
        };
        let Ok(bytes) = postcard::to_allocvec(&known) else { return };
        let new = self.file.with_extension("new");
        let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, "could not write down when chunks were collected");
        }
    }

    pub(super) fn row(&self) -> Option<GcRow> {
        let freed = self.known.lock().freed?;
        Some(GcRow { time: rfc3339(freed.at_ms), freed_bytes: freed.bytes })
    }

    pub(super) fn history(&self) -> Option<HistoryCost> {
        let history = self.known.lock().history?;
        Some(HistoryCost { time: rfc3339(history.at_ms), bytes: history.bytes })
    }
}

/// What other devices held, and when it was so.
struct Held {
    at_ms: u64,
    reach: Reach,
}

/// Decides about versions.
pub(super) struct Judge {
    retention: Retention,
    rules: Rules,
    /// None: there is no other member.
    elsewhere: Option<Vec<Held>>,
}

impl From<Policy> for PolicyRow {
    fn from(policy: Policy) -> Self {
        Self { keep_all_s: policy.keep_all_s, keep_daily_s: policy.keep_daily_s }
    }
}

impl Drive {
    /// Sets how long versions are kept.
    pub fn set_policy(&self, policy: Policy) -> Result<(), Failure> {
        if self.journal.policy() == policy {
            return Ok(());
        }
        self.author(vec![Op::Retain(policy)]).map_err(|e| Failure::of(&e))
    }

    /// The policy that holds, with these parts of it changed.
    pub fn policy_with(&self, keep_all_s: Option<u64>, keep_daily_s: Option<u64>) -> Policy {
        let now = self.journal.policy();
        Policy {
            keep_all_s: keep_all_s.unwrap_or(now.keep_all_s),
            keep_daily_s: keep_daily_s.unwrap_or(now.keep_daily_s),
        }
    }

    /// How long versions are kept.
    pub(super) fn policy_row(&self) -> PolicyRow {
        self.journal.policy().into()
    }

    /// Removes, or counts, what no version needs that `policy` keeps. `stop` is asked again and again whether to end.
    pub fn gc(
        &self,
        policy: Policy,
        how: Sweep,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GcReport, Failure> {
        let mut tell = |stage: &str, done, total| {
            progress(Progress { stage: stage.into(), done, total, unit: Unit::Items });
        };
        let before = self.store.usage().stored_bytes;
        // From here on, whatever is stored or found to be here stays.
        let mut collector = self.store.collect().map_err(refusal)?;
        let mut keep = |content: Content| collector.keep(content).map_err(refusal);
        for content in self.fs().map(|fs| fs.contents_in_use()).unwrap_or_default() {
            keep(content)?;
        }
        for content in self.fetching.pending_contents() {
            keep(content)?;
        }
        let judge = self.judge(policy)?;
        self.each_version(stop, &mut |named| match judge.is_shown(self, named.version)? {
            true => keep(Content { id: named.content.id, len: named.content.len }),
            false => Ok(()),
        })?;
        let old_bytes = collector.unneeded_bytes().map_err(refusal)?;
        let (mut versions, mut kept_alone, mut let_go) = (0u64, 0u64, 0u64);
        self.each_version(stop, &mut |named| {
            versions += 1;
            if versions.is_multiple_of(WALK_STEP as u64) {
                tell("looking at versions", versions, None);
            }
            match judge.needs(self, named.version)? {
                Need::Policy => {}
                // What a collection removed before counts as let go.
                Need::Alone if self.store.has(&named.content.id.root()) => kept_alone += 1,
                Need::Alone => let_go += 1,
                Need::None => {
                    let_go += 1;
                    return Ok(());
                }
            }
            let content = Content { id: named.content.id, len: named.content.len };
            collector.keep(content).map_err(refusal)
        })?;
        let swept = collector.sweep(how, &mut |step| {
            tell("sweeping packs", step.packs_done, Some(step.packs_total));
            if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let swept = swept.map_err(refusal)?;
        let now = |bytes| Some(Amount { at_ms: self.clock.wall_ms(), bytes });
        let history_bytes = old_bytes.saturating_sub(swept.unneeded_bytes);
        // What a policy would keep that is only tried out says nothing about the drive's own.
        let counted = swept.stopped.is_none() && policy == self.journal.policy();
        let history = now(history_bytes).filter(|_| counted);
        match how {
            Sweep::Remove => {
                self.collected.note(now(swept.freed_bytes()), history);
                self.elsewhere.save();
            }
            Sweep::Count => self.collected.note(None, history),
        }
        tracing::info!(?swept, versions, let_go, kept_alone, "chunks were collected");
        let counts = [versions, let_go, kept_alone];
        Ok(GcReport { history_bytes, ..report(policy, how, before, &swept, counts) })
    }

    /// Calls `each` with every version of a file and its content. `stop` is asked again and again whether to end.
    fn each_version(
        &self,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&Named) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut cursor = None;
        loop {
            let (named, next) = self.journal.contents(cursor.as_ref(), WALK_STEP);
            named.iter().try_for_each(&mut *each)?;
            if stop() {
                return Err(Failure::cancelled());
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Whether a version's bytes are not here and need not be anywhere.
    pub(super) fn is_gone(&self, version: &HistoryVersion, rules: &mut Option<Retention>) -> bool {
        let Value::File(file) = &version.value else { return false };
        let content = Content { id: file.content.id, len: file.content.len };
        !self.is_complete(content) && !self.is_owed(version.version, rules)
    }

    /// What decides about versions now.
    fn judge(&self, policy: Policy) -> Result<Judge, Failure> {
        let own = self.signer.device();
        let retention = self.journal.retention(Arrivals::Known, self.clock.now());
        let retention = retention.map_err(|e| Failure::of(&e))?;
        let members = self.journal.members();
        let others: Vec<DeviceId> =
            members.iter().filter(|m| !m.removed && m.device != own).map(|m| m.device).collect();
        let elsewhere = match others.is_empty() {
            true => None,
            false => {
                let points = self.elsewhere.of(&others).into_iter();
                let held = points.map(|point| {
                    let reach = self.journal.reach(&point.held)?;
                    Ok(Held { at_ms: point.at_ms, reach })
                });
                Some(
                    held.collect::<Result<_, _>>()
                        .map_err(|e: journal::StateError| Failure::of(&e))?,
                )
            }
        };
        let rules = match retention.rules.policy() == policy {
            true => retention.rules.clone(),
            false => retention.rules.clone().with(policy),
        };
        Ok(Judge { retention, rules, elsewhere })
    }
}

/// Why a version's bytes stay.
enum Need {
    /// The policy keeps them.
    Policy,
    /// No other device is known to have them.
    Alone,
    /// They need not.
    None,
}

impl Judge {
    /// Whether the drive shows this version now.
    fn is_shown(&self, drive: &Drive, version: VersionId) -> Result<bool, Failure> {
        let facts = drive.journal.facts(&self.retention, version);
        let facts = facts.map_err(|e| Failure::of(&e))?;
        Ok(facts.is_none_or(|(facts, _)| facts.replaced.is_none()))
    }

    fn needs(&self, drive: &Drive, version: VersionId) -> Result<Need, Failure> {
        let facts = drive.journal.facts(&self.retention, version);
        let Some((facts, place)) = facts.map_err(|e| Failure::of(&e))? else {
            return Ok(Need::Policy);
        };
        if self.rules.kept(&facts) {
            return Ok(Need::Policy);
        }
        let shared = |held: &Held| {
            // By the rules as they were: a policy that is only tried out let nobody go without it.
            held.reach.has(place) && self.retention.rules.owed_at(&facts, held.at_ms)
        };
        match &self.elsewhere {
            Some(all) if !all.iter().any(shared) => Ok(Need::Alone),
            _ => Ok(Need::None),
        }
    }
}

fn refusal(error: GcError) -> Failure {
    match error {
        GcError::Busy => Failure::collecting_already(),
        GcError::Damaged { .. } => Failure::damaged(&error),
        other => Failure::of(&other),
    }
}

fn report(
    policy: Policy,
    how: Sweep,
    before: u64,
    swept: &Swept,
    [versions, versions_let_go, versions_alone]: [u64; 3],
) -> GcReport {
    GcReport {
        dry_run: how == Sweep::Count,
        policy: policy.into(),
        store_bytes: before.saturating_sub(match how {
            Sweep::Remove => swept.freed_bytes(),
            Sweep::Count => 0,
        }),
        freed_bytes: swept.freed_bytes(),
        unneeded_bytes: swept.unneeded_bytes,
        chunks: swept.chunks_removed,
        packs: swept.packs_removed,
        versions,
        versions_let_go,
        versions_alone,
        history_bytes: 0,
        stopped: swept.stopped.map(|stopped| match stopped {
            Stopped::Asked => "asked".to_owned(),
            Stopped::Full => "full".to_owned(),
        }),
        damaged_packs: swept.packs_damaged,
    }
}
