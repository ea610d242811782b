//! The file system below FUSE against a reference so simple that it is obviously right.
//!
//! ```text
//! operation   what programs, time, crashes and another member do     pair       the journals of both devices
//! reference   a POSIX tree in memory, and what the spool owes it      machine    one operation on both sides
//! check       comparing what can be seen                              their      what the other member does
//! regression  sequences that once failed, by name
//! ```
//!
//! Every invariant is asked for after every operation: names, kinds, inode numbers, attributes, listings, the bytes under
//! every open handle and the number of every error. At each publication: nothing is published that the reference did not
//! have. After a crash: C1 (what was synced is there), C5 (of the rest a prefix, no partial file). In the end: T5 (no
//! version is lost), T7 (nothing another device wrote is replaced unseen), F3 (a rename leaves no gap, a removed open file
//! stays readable). The letters are those of the reliability notes the design rests on.
//!
//! Leaves out: threads (one operation at a time), the kernel (`mounts`), the network.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use proptest_state_machine::prop_state_machine;

mod check;
pub mod machine;
mod operation;
pub mod pair;
mod reference;
mod regression;
mod their;

use machine::Machine;

/// Cases of each of the parts, so that they run beside each other.
const CASES: u32 = 2_500;

/// The same cases every time; with `MODEL_CASES`, so many others.
fn config(part: u64) -> ProptestConfig {
    let cases: Option<u32> = std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(CASES),
        rng_seed: if cases.is_some() { RngSeed::Random } else { RngSeed::Fixed(part) },
        max_shrink_iters: 20_000,
        // A failure becomes a named test in `regression`.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

prop_state_machine! {
    #![proptest_config(config(1))]
    #[test]
    fn programs_see_a_posix_tree_whatever_happens_1(sequential 1..100 => Machine);
}

prop_state_machine! {
    #![proptest_config(config(2))]
    #[test]
    fn programs_see_a_posix_tree_whatever_happens_2(sequential 1..100 => Machine);
}

prop_state_machine! {
    #![proptest_config(config(3))]
    #[test]
    fn programs_see_a_posix_tree_whatever_happens_3(sequential 1..100 => Machine);
}

prop_state_machine! {
    #![proptest_config(config(4))]
    #[test]
    fn programs_see_a_posix_tree_whatever_happens_4(sequential 1..100 => Machine);
}
