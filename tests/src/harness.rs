//! Real processes, real mounts and real networks for tests and benchmarks.
//!
//! Leaves out every judgement: a harness module makes something happen or reports what is there; what is right is
//! said by the tests.

pub mod artist;
pub mod blender;
pub mod clock;
pub mod dance;
pub mod device;
pub mod holder;
pub mod liar;
pub mod netns;
pub mod process;
pub mod program;
pub mod rot;
pub mod site;
pub mod skip;
pub mod tree;
pub mod wait;
