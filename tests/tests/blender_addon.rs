//! The Blender add-on, by its own tests: against a pretended daemon in plain Python, in the real Blender without a
//! window, and with one on a virtual screen.
//!
//! Leaves out real drives.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::program;
use tests::harness::skip::Need;
use tests::needs;

/// How long one set of tests may take on a busy machine.
const TESTS_BOUND: Duration = Duration::from_secs(500);

/// Runs the add-on's tests in the files `pattern` matches; there must be at least `least`, and none may skip itself.
fn run_tests(pattern: &str, least: u32) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut python = Command::new("python3");
    python.args(["-B", "-m", "unittest", "discover", "-s"]).arg(root.join("blender/tests"));
    let ran = program::run(python.args(["-p", pattern]), TESTS_BOUND)?;
    ensure!(ran.code == 0, "{pattern} ended with {}\n{}{}", ran.code, ran.out, ran.err);
    let count = ran.err.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next());
    let count: u32 = count.unwrap_or("0").parse()?;
    ensure!(count >= least, "{pattern} has only {count} tests\n{}", ran.err);
    ensure!(!ran.err.contains("skipped="), "{pattern} skipped some\n{}", ran.err);
    Ok(())
}

#[test]
fn the_add_on_bears_a_daemon_that_is_silent_lies_or_dies() -> Result<()> {
    // Root, to be another user whose daemon is not to be believed.
    needs!(Need::Root, Need::Program("python3"));
    for pattern in
        ["test_control.py", "test_drive.py", "test_helper.py", "test_locks.py", "test_watch.py"]
    {
        run_tests(pattern, 7)?;
    }
    run_tests("test_keeper.py", 30)?;
    run_tests("test_addon.py", 15)
}

#[test]
fn the_add_on_checks_out_and_gives_back_in_the_real_blender() -> Result<()> {
    needs!(Need::Program("python3"), Need::Program("blender"));
    run_tests("test_blender.py", 10)
}

#[test]
fn the_add_on_draws_asks_and_tells_with_a_window() -> Result<()> {
    needs!(Need::Program("python3"), Need::Program("blender"), Need::Program("xvfb-run"));
    run_tests("test_window.py", 1)
}
