//! A state on disk, one in memory and one made anew from the log are the same. That any delivery of one set of entries
//! gives the tree the rules describe the simulator shows (`tests::sim`).

use std::sync::Arc;

use journal::kv::mem::MemKv;
use journal::state::State;
use journal::{Journal, Opened};

use crate::cluster::Cluster;
use crate::forge::{feed, journal_of};
use crate::oracle::walk;

const STEPS: usize = 60;

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
