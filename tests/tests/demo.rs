//! The demo does what it shows, and leaves nothing behind.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::device::program_path;
use tests::harness::process;
use tests::harness::program;
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::needs;

const DEMO_BOUND: Duration = Duration::from_secs(150);

#[test]
fn the_demo_runs_through_and_cleans_up() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let dir = site.path().join("demo");
    let mut demo = std::process::Command::new(program_path()?);
    let out = program::ok_within(demo.arg("demo").arg(&dir), DEMO_BOUND)?;
    println!("{out}");
    ensure!(out.contains("(conflict "), "the demo showed no conflict copy:\n{out}");
    ensure!(out.lines().count() >= 8, "the demo said next to nothing:\n{out}");
    ensure!(process::mounts_below(site.path()).is_empty(), "the demo left mounts behind");
    ensure!(process::of_dir(site.path()).is_empty(), "the demo left processes behind");
    let left = dir.exists() && fs::read_dir(&dir)?.next().is_some();
    ensure!(!left, "the demo left files behind");
    Ok(())
}

#[test]
fn the_demo_keeps_its_directories_when_asked() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let dir = site.path().join("demo");
    let mut demo = std::process::Command::new(program_path()?);
    program::ok_within(demo.arg("demo").arg(&dir).arg("--keep"), DEMO_BOUND)?;
    ensure!(fs::read_dir(&dir)?.count() > 0, "--keep kept nothing");
    Ok(())
}
