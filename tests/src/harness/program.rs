//! Running other programs to their end: output kept, time bounded, failures told with what the program said.
//!
//! Output goes to unnamed files, never to pipes: a program that leaves something running in the background (the
//! daemon does) must not keep us waiting for the end of a stream.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wait;

/// How long an ordinary command may take on a busy machine.
pub const COMMAND_BOUND: Duration = Duration::from_secs(60);

/// How long a script of many commands may take.
const SCRIPT_BOUND: Duration = Duration::from_secs(180);

/// What a finished program left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `command` with empty input and gives whatever came of it; an error only if it did not start or did not end.
pub fn run(command: &mut Command, bound: Duration) -> Result<Ran> {
    let shown = format!("{command:?}");
    let mut out = tempfile::tempfile().context("create a file for output")?;
    let mut err = tempfile::tempfile().context("create a file for output")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let Some(status) = wait::exit_of(&mut child, bound)? else {
        child.kill().ok();
        child.wait().ok();
        bail!(
            "{shown} did not end within {} s\n{}{}",
            bound.as_secs(),
            text(&mut out)?,
            text(&mut err)?
        );
    };
    let code = status.code().unwrap_or_else(|| {
        128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()
    });
    Ok(Ran { code, out: text(&mut out)?, err: text(&mut err)? })
}

/// Runs `command`, insists on exit code 0 and gives its standard output.
pub fn ok_within(command: &mut Command, bound: Duration) -> Result<String> {
    let ran = run(command, bound)?;
    if ran.code != 0 {
        bail!("{command:?} ended with {}\n{}{}", ran.code, ran.out, ran.err);
    }
    Ok(ran.out)
}

/// [`ok_within`] the ordinary bound.
pub fn ok(command: &mut Command) -> Result<String> {
    ok_within(command, COMMAND_BOUND)
}

/// A command from a program and its arguments.
pub fn command<const N: usize>(program: &str, args: [&str; N]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs a strict bash script in a directory, insists on exit code 0 and gives its standard output.
pub fn shell(dir: &Path, script: &str) -> Result<String> {
    let mut bash = command("bash", ["-euo", "pipefail", "-c", script]);
    bash.current_dir(dir).env("LC_ALL", "C.UTF-8").env("HOME", dir);
    ok_within(&mut bash, SCRIPT_BOUND)
}

fn text(file: &mut std::fs::File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
