//! Everything that proves Atelier from the outside: the harness that runs real processes, real mounts and real
//! networks on one machine, and the benchmarks that compare it with others.
//!
//! The harness talks to the product only through its command line contract and the mount, as a user would, so that a
//! test can fail only for a reason a user would notice too. The simulator ([`sim`]) drives journal, store and exchange
//! through their public calls instead, and [`fuzz`] feeds arbitrary bytes to whatever reads some.
//!
//! ```text
//! tests/runner.rs ──► harness::{device, netns, blender, tree, rot, clock, ...} ──► program, wait, site
//! bin/bench.rs    ──► bench::{sync, mount, scale, journal, ...} ──► harness
//! tests/fuzz.rs ──► fuzz                     (decoders and the fold over arbitrary bytes)
//! bin/sim.rs       ──► sim                   (whole clusters from one seed)
//! bin/passthrough.rs ──► passthrough         (the plain FUSE file system the mount is compared with)
//! ```
//!
//! Invariants
//! * Every wait has a bound and a message that says what did not happen ([`harness::wait`]).
//! * Whatever is started, mounted or created is taken away again when its value is dropped, also after a panic.
//! * A test that cannot run here says so visibly ([`harness::skip`]); under `CI` that is a failure.
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "JSON values answer null for a missing key, and a panic is a failed test"
)]

pub mod bench;
pub mod fuzz;
pub mod harness;
pub mod passthrough;
pub mod sim;
