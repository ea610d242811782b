//! Any delivery of one set of entries gives one tree, and that is the tree the rules describe.

use std::collections::BTreeSet;
use std::sync::Arc;

use journal::kv::mem::MemKv;
use journal::state::State;
use journal::{EntryId, Journal, Opened};

use crate::cluster::Cluster;
use crate::forge::{feed, journal_of};
use crate::oracle::{Oracle, checkouts_differ, walk};

const STEPS: usize = 60;

/// Runs the cluster; gives what the rules say of all it wrote.
fn check(seed: u64, mut cluster: Cluster) -> Oracle {
    cluster.run(STEPS);
    let entries = cluster.entries();
    let hash = cluster.devices[0].journal.tree_hash();
    for device in &cluster.devices {
        assert_eq!(device.journal.tree_hash(), hash, "seed {seed}: devices differ");
    }
    let rules = Oracle::of(&entries);
    let expected = rules.nodes();
    let shown = walk(&cluster.devices[0].journal);
    assert_eq!(shown, expected, "seed {seed}: not the tree the rules describe");
    for _ in 0..3 {
        let (other, _) = journal_of(&cluster.genesis);
        cluster.deliver(&entries, &other);
        assert_eq!(other.tree_hash(), hash, "seed {seed}: order of delivery matters");
        assert_eq!(walk(&other), expected, "seed {seed}: order of delivery matters");
        assert_eq!(other.counts(), cluster.devices[0].journal.counts(), "seed {seed}");
        assert_eq!(checkouts_differ(&other, &rules), None);
    }
    let journal = &cluster.devices[0].journal;
    assert_eq!(checkouts_differ(journal, &rules), None);
    journal.rebuild_state().unwrap();
    assert_eq!(checkouts_differ(journal, &rules), None);
    assert_eq!(journal.tree_hash(), hash, "seed {seed}: rebuilding gives another tree");
    assert_eq!(walk(journal), expected, "seed {seed}: rebuilding gives another tree");
    // What lay only on a disk that was lost is lost.
    let kept: BTreeSet<EntryId> = entries.iter().map(|entry| entry.id()).collect();
    for (version, register) in cluster.written.iter().filter(|(v, _)| kept.contains(&v.entry)) {
        let history = journal.history(register.dir, &register.name).unwrap();
        let found = history.iter().any(|h| h.version == *version);
        assert!(found, "seed {seed}: version {version} of {register:?} is lost");
    }
    rules
}

#[test]
fn every_order_of_delivery_gives_the_tree_the_rules_describe() {
    for seed in 0..120 {
        check(seed, Cluster::new(seed, false));
    }
}

#[test]
fn forked_chains_converge_all_the_same() {
    for seed in 1000..1100 {
        check(seed, Cluster::new(seed, true));
    }
}

#[test]
fn checkouts_and_breaks_converge_whatever_else_happens() {
    let (mut breaks, mut cuts) = (0, 0);
    for seed in 4000..4120 {
        let mut cluster = Cluster::new(seed, seed % 3 == 1);
        (cluster.locks, cluster.removals) = (25, seed % 3 == 2);
        let rules = check(seed, cluster);
        breaks += rules.checkouts.breaks();
        cuts += rules.cuts();
    }
    assert!(breaks > 200 && cuts > 30, "{breaks} breaks cut {cuts} bases: too little to see");
}

#[test]
fn removals_and_changed_roles_converge() {
    for seed in 2000..2080 {
        let mut cluster = Cluster::new(seed, false);
        cluster.removals = true;
        cluster.run(STEPS);
        let entries = cluster.entries();
        let (mut hashes, rules) = (Vec::new(), Oracle::of(&entries));
        for _ in 0..4 {
            let (other, _) = journal_of(&cluster.genesis);
            cluster.deliver(&entries, &other);
            assert_eq!(checkouts_differ(&other, &rules), None);
            hashes.push((other.tree_hash(), walk(&other), other.members()));
        }
        for other in &hashes {
            assert_eq!(other.2, hashes[0].2, "seed {seed}: order of delivery matters");
            assert_eq!(other.1, hashes[0].1, "seed {seed}: order of delivery matters");
            assert_eq!(other.0, hashes[0].0, "seed {seed}: order of delivery matters");
        }
    }
}

#[test]
fn the_state_on_disk_is_the_state_in_memory() {
    for seed in 3000..3004 {
        let mut cluster = Cluster::new(seed, true);
        cluster.run(STEPS);
        let entries = cluster.entries();
        let dir = tempfile::tempdir().unwrap();
        let disk = Journal::adopt(dir.path(), cluster.genesis.bytes()).unwrap();
        cluster.deliver(&entries, &disk);
        let memory = &cluster.devices[0].journal;
        assert_eq!(disk.tree_hash(), memory.tree_hash());
        assert_eq!(walk(&disk), walk(memory));
        disk.close().unwrap();
        drop(disk);
        for opened in [Opened::Clean, Opened::ProcessCrash, Opened::PowerLoss] {
            let disk = Journal::open(dir.path(), opened).unwrap();
            assert_eq!(disk.tree_hash(), memory.tree_hash());
            assert_eq!(walk(&disk), walk(memory));
        }
    }
}

#[test]
fn a_memory_journal_reopens_from_its_log_alone() {
    let mut cluster = Cluster::new(7, false);
    cluster.run(STEPS);
    let entries = cluster.entries();
    let (journal, storage) = journal_of(&cluster.genesis);
    feed(&journal, &entries);
    let state = State::Memory(MemKv::default());
    let again = Journal::open_with(Arc::new(storage), state, None).unwrap();
    assert_eq!(again.tree_hash(), journal.tree_hash());
    assert_eq!(walk(&again), walk(&journal));
}
