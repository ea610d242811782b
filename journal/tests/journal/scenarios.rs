//! Scenarios, by subject: who does what, in which order it is published, and what everybody then shows. The notation is
//! in [`crate::script`].
//!
//! Beside what a scenario writes out, each is held to what is true of all of them ([`ends_well`]): any order of
//! delivery and a rebuilt state give the same tree, which is the naive oracle's; nothing written is lost; what was
//! resolved stays so; and the tree of every moment is what the moment's entries alone fold to.

mod breaks;
mod checkouts;
mod cycles;
mod dances;
mod directories;
mod files;
mod forks;
mod late;
mod moves;
mod names;
mod repeated;
mod resolving;
mod roles;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use journal::signed::VerifiedEntry;
use journal::view::HistoryStanding;
use journal::{
    CheckoutFate, DirId, EntryId, Journal, Moment, Op, Past, Register, Standing, Value, ViewKind,
};

use crate::cluster::{Rng, deliver};
use crate::forge::{journal_of, signer_of};
use crate::oracle::{self, Oracle};
use crate::past::{closure, published_ms};
use crate::script::{Step, Subject, steps};
use crate::stage::{Stage, nodes_of, user_of, written};

/// Orders of delivery tried for each scenario.
const DELIVERIES: u64 = 40;
/// Moments of the past looked at for each scenario.
const MOMENTS_MAX: usize = 24;

/// Lines that say something of single things, not all that is shown.
const LOOKS: [&str; 4] = ["member", "history", "fate", "locks"];

/// A name and what happens.
type Scenario<'a> = (&'a str, &'a str);

/// Plays all scenarios of a table and names those that fail.
fn all(table: &[Scenario<'_>]) {
    let mut failed = Vec::new();
    let names: BTreeSet<&str> = table.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), table.len(), "two scenarios have one name");
    for (name, text) in table {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(text))) {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            failed.push(format!("{name}\n{text}\n{said}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} fail:\n\n{}",
        failed.len(),
        table.len(),
        failed.join("\n\n")
    );
}

fn play(text: &str) {
    let mut stage = Stage::new();
    for step in steps(text) {
        match step {
            Step::Act { device, actions } => {
                let done = stage.act(device, &actions);
                done.unwrap_or_else(|error| panic!("{device}: {actions:?}: {error}"));
            }
            Step::Refused { device, actions } => {
                let done = stage.act(device, &actions);
                assert!(done.is_err(), "{device}! {actions:?} was not refused");
            }
            Step::TakeBack { by, whom } => stage.take_back(by, whom).unwrap(),
            Step::Cut(devices) => stage.cut(&devices),
            Step::Apart(groups) => stage.apart(&groups),
            Step::Join(order) => stage.join(&order),
            Step::Together(order) => together(&mut stage, &order),
            Step::Wait(ms) => stage.wait(ms),
            Step::Clock { device, skew_ms } => stage.set_clock(device, skew_ms),
            Step::Backup(device) => stage.back_up(device),
            Step::Restore(device) => stage.restore(device),
            Step::Restart(device) => stage.restart(device),
            Step::Clone { device, twin } => stage.clone_disk(device, twin),
            Step::Mark(name) => {
                let at = stage.wall_ms;
                stage.marks.insert(name, at);
                // What comes next is after this moment.
                stage.wait(1);
            }
            Step::Expect { of, lines } => expect(&stage, &of, &lines),
        }
    }
    ends_well(&stage);
}

fn together(stage: &mut Stage, order: &[char]) {
    let first = order.first().copied().unwrap_or('A');
    let mut all = vec![first];
    all.extend(stage.mates(first).into_iter().filter(|d| *d != first));
    all.extend(order.iter().skip(1));
    let rest: Vec<char> = stage.players.keys().filter(|d| !all.contains(d)).copied().collect();
    all.extend(rest);
    stage.join(&all);
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn expect(stage: &Stage, of: &Subject, lines: &[Vec<String>]) {
    let (mut tree, mut skipped, mut held) = (Vec::new(), Vec::new(), Vec::new());
    let devices = match of {
        Subject::Everybody => stage.mates('A'),
        Subject::Device(device) => vec![*device],
        Subject::Then(_) => vec!['A'],
    };
    for line in lines {
        match line.first().map(String::as_str) {
            Some("nothing") => {}
            Some("skipped") => skipped.push(line[1..].join(" ")),
            Some("held") => held.push(line[1..].join(" ")),
            Some("fate") => devices.iter().for_each(|d| expect_fate(stage, *d, &line[1..])),
            Some("locks") => devices.iter().for_each(|d| {
                let policy = format!("{:?}", stage.player(*d).journal.lock_policy());
                assert_eq!(policy.to_lowercase(), line[1], "{d} says this of locks");
            }),
            Some("member") => devices.iter().for_each(|d| expect_member(stage, *d, &line[1..])),
            Some("history") => devices.iter().for_each(|d| expect_history(stage, *d, &line[1..])),
            _ => tree.push(line.join(" ")),
        }
    }
    let looks = lines.iter().all(|line| LOOKS.contains(&line[0].as_str()));
    if looks {
        return;
    }
    let (tree, skipped, held) = (sorted(tree), sorted(skipped), sorted(held));
    for device in devices {
        let nodes = match of {
            Subject::Then(name) => {
                let journal = &stage.player(device).journal;
                let past = Past::new(moment(stage, journal, name));
                nodes_of(|dir| past.list(journal, dir).unwrap(), &|by| user_of(journal, by))
            }
            _ => stage.nodes(device),
        };
        let shown = nodes.iter().map(|(path, node)| {
            let slash = if matches!(node.kind, ViewKind::Dir { .. }) { "/" } else { "" };
            format!("{path}{slash} {}", stage.what(node)).trim_end().to_owned()
        });
        let shown = sorted(shown.collect());
        assert!(shown == tree, "{of:?}, {device} shows\n  {}", shown.join("\n  "));
        if !matches!(of, Subject::Then(_)) {
            let listed = listed_moves(stage, device);
            assert!(listed == skipped, "{device} lists the skipped moves {listed:?}");
            let listed = listed_checkouts(stage, device);
            assert!(listed == held, "{device} lists the checkouts {listed:?}");
        }
    }
}

fn moment(stage: &Stage, journal: &Journal, name: &str) -> Moment {
    match stage.marks.get(name) {
        Some(ms) => Moment::At { ms: *ms },
        None => {
            let all = journal.snapshots().unwrap();
            let found = all.iter().find(|snapshot| snapshot.name == name);
            Moment::Snapshot(found.unwrap_or_else(|| panic!("no moment {name}")).entry)
        }
    }
}

/// What `conflicts` says of moves; what it says of copies is what the tree shows.
fn listed_moves(stage: &Stage, device: char) -> Vec<String> {
    let journal = &stage.player(device).journal;
    let path = |register: &journal::Register| {
        format!("{}{}", stage.path_of(device, register.dir), register.name)
    };
    let (mut moves, mut copies) = (Vec::new(), Vec::new());
    for conflict in journal.conflicts().unwrap() {
        assert!(!conflict.copies.is_empty() || !conflict.skipped.is_empty());
        copies.extend(conflict.copies.iter().map(|copy| (copy.version, copy.shown.clone())));
        for skipped in &conflict.skipped {
            let by = user_of(journal, skipped.author);
            moves.push(format!("{} -> {} by {by}", path(&conflict.register), path(&skipped.to)));
        }
    }
    let nodes = stage.nodes(device);
    let mut shown: Vec<_> = nodes
        .iter()
        .filter(|(_, node)| node.standing == Standing::Copy)
        .map(|(_, node)| (node.version, node.shown.clone()))
        .collect();
    shown.sort();
    copies.sort();
    assert_eq!(copies, shown, "conflicts and the tree of {device} differ");
    assert_eq!(journal.counts().conflicts, copies.len() as u64);
    sorted(moves)
}

fn listed_checkouts(stage: &Stage, device: char) -> Vec<String> {
    let journal = &stage.player(device).journal;
    let all = journal.checkouts().unwrap();
    let told = all.iter().map(|checkout| {
        let Register { dir, name } = &checkout.register;
        assert_eq!(journal.checkout(&checkout.register).unwrap().as_ref(), Some(checkout));
        format!("{}{name} {}", stage.path_of(device, *dir), user_of(journal, checkout.device))
    });
    sorted(told.collect())
}

fn expect_fate(stage: &Stage, device: char, line: &[String]) {
    let whom = line[0].chars().next().unwrap();
    let journal = &stage.player(device).journal;
    let fate = journal.checkout_fate(stage.checkouts[&(whom, line[1].clone())]).unwrap();
    let said = match fate {
        None => "unknown".to_owned(),
        Some(CheckoutFate::Held) => "held".to_owned(),
        Some(CheckoutFate::GivenBack) => "given".to_owned(),
        Some(CheckoutFate::Broken { by }) => format!("broken {}", user_of(journal, by)),
        Some(CheckoutFate::Removed) => "removed".to_owned(),
        Some(CheckoutFate::Void { holder: Some(by) }) => format!("void {}", user_of(journal, by)),
        Some(CheckoutFate::Void { holder: None }) => "void".to_owned(),
    };
    assert_eq!(said, line[2..].join(" "), "{device} says this of {}'s {}", line[0], line[1]);
}

fn expect_member(stage: &Stage, device: char, line: &[String]) {
    let whom = line[0].chars().next().unwrap();
    let member = stage.player(device).journal.member(signer_of(whom).device());
    let said = match member {
        None => "none".to_owned(),
        Some(member) => {
            let mut words = vec![format!("{:?}", member.role).to_lowercase()];
            let flags = [
                ("removed", member.removed),
                ("forked", member.flags.forked.is_some()),
                ("overused", member.flags.overused_invite),
                ("ignored", member.flags.ignored_operations),
            ];
            words.extend(flags.iter().filter(|(_, set)| *set).map(|(word, _)| (*word).to_owned()));
            words.join(" ")
        }
    };
    assert_eq!(said, line[1..].join(" "), "{device} says this of the member {whom}");
}

fn expect_history(stage: &Stage, device: char, line: &[String]) {
    let (path, versions) = line.split_first().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    let here = |(at, node): &(String, journal::ViewNode)| match node.kind {
        ViewKind::Dir { dir, .. } if at == parent => Some(dir),
        _ => None,
    };
    let dir = match parent {
        "" => DirId::ROOT,
        _ => stage.nodes(device).iter().find_map(here).expect("a directory"),
    };
    let journal = &stage.player(device).journal;
    let found = journal.history(dir, &crate::forge::name(last)).unwrap();
    let texts: Vec<String> = found
        .iter()
        .map(|version| {
            let text = match &version.value {
                Value::File(file) => stage.text(&file.content),
                Value::Symlink(link) => String::from_utf8_lossy(&link.target).into_owned(),
                Value::Gone { .. } => "-".to_owned(),
            };
            match version.standing {
                HistoryStanding::Quarantined => format!("({text})"),
                _ => text,
            }
        })
        .collect();
    assert_eq!(texts, versions, "history of {path} at {device}");
}

/// What is true at the end of every scenario.
fn ends_well(stage: &Stage) {
    let entries = stage.entries('A');
    let journal = &stage.player('A').journal;
    let (hash, shown) = (journal.tree_hash(), oracle::walk(journal));
    let rules = Oracle::of(&entries);
    let expected = rules.nodes();
    assert!(shown == expected, "not the tree the rules describe:\n{shown:#?}\n{expected:#?}");
    assert_eq!(oracle::checkouts_differ(journal, &rules), None);
    let moves = listed_moves(stage, 'A');
    for seed in 0..DELIVERIES {
        let (other, _) = journal_of(&stage.genesis);
        deliver(&mut Rng(seed), &entries, &other);
        assert_eq!(oracle::walk(&other), shown, "delivery {seed} shows another tree");
        assert_eq!(other.tree_hash(), hash, "delivery {seed} has another hash");
        assert_eq!(other.counts(), journal.counts(), "delivery {seed} counts otherwise");
        assert_eq!(oracle::checkouts_differ(&other, &rules), None);
        assert_eq!(other.lock_policy(), journal.lock_policy(), "delivery {seed}");
        assert_eq!(other.members(), journal.members(), "delivery {seed} has other members");
        assert_eq!(other.conflicts().unwrap(), journal.conflicts().unwrap(), "delivery {seed}");
    }
    journal.rebuild_state().unwrap();
    assert_eq!(journal.tree_hash(), hash, "rebuilding gives another hash");
    assert_eq!(oracle::walk(journal), shown, "rebuilding gives another tree");
    assert_eq!(listed_moves(stage, 'A'), moves, "rebuilding lists other moves");
    assert_eq!(oracle::checkouts_differ(journal, &rules), None);
    nothing_is_lost(journal, &entries);
    if !stage.members_changed && rules.checkouts.breaks() == 0 {
        what_was_resolved_stays_so(&entries, &shown);
    }
    the_past_is_what_was(stage, &entries);
}

fn nothing_is_lost(journal: &Journal, entries: &[VerifiedEntry]) {
    for (version, register) in written(entries) {
        let history = journal.history(register.dir, &register.name).unwrap();
        let found = history.iter().any(|h| h.version == version);
        assert!(found, "a version of {} is lost", register.name);
    }
}

fn what_was_resolved_stays_so(entries: &[VerifiedEntry], shown: &[oracle::Node]) {
    for op in entries.iter().flat_map(|entry| &entry.entry().ops) {
        let Op::Resolve { drop, .. } = op else { continue };
        let is_back = |node: &&oracle::Node| {
            drop.contains(&node.version) && !matches!(node.thing, oracle::Thing::Dir(_))
        };
        assert!(shown.iter().find(is_back).is_none(), "a resolved conflict came back");
    }
}

/// Every moment shows what the rules make of its entries alone.
fn the_past_is_what_was(stage: &Stage, entries: &[VerifiedEntry]) {
    let journal = &stage.player('A').journal;
    let by_id: BTreeMap<EntryId, VerifiedEntry> =
        entries.iter().map(|entry| (entry.id(), entry.clone())).collect();
    let compare = |moment: Moment, within: &[VerifiedEntry]| {
        let past = Past::new(moment);
        let then = oracle::nodes_of(|dir| past.list(journal, dir).unwrap());
        let expected = Oracle::fold(within);
        assert!(then == expected, "{moment:?} shows\n{then:#?}\nand was\n{expected:#?}");
    };
    for snapshot in journal.snapshots().unwrap() {
        compare(Moment::Snapshot(snapshot.entry), &closure(&by_id, &[snapshot.entry]));
    }
    for entry in entries.iter().rev().take(MOMENTS_MAX) {
        compare(Moment::Snapshot(entry.id()), &closure(&by_id, &[entry.id()]));
    }
    if stage.forked {
        // A device whose disk came back may call one entry late twice; then only closedness is promised.
        return;
    }
    let published = published_ms(&by_id);
    let times: BTreeSet<u64> = published.values().copied().collect();
    for ms in times.into_iter().rev().take(MOMENTS_MAX) {
        let within: Vec<EntryId> =
            published.iter().filter(|(_, at)| **at <= ms).map(|(id, _)| *id).collect();
        compare(Moment::At { ms }, &closure(&by_id, &within));
    }
}
