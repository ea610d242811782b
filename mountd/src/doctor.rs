//! `atelier doctor`: can this machine mount, store, find others and keep a key?
//!
//! Every line is a real try, not a guess from versions ([`checks`]). Leaves out repairing.
//!
//! Invariants: nothing is left behind by a check; the exit code is 1 exactly when something stands in
//! the way of mounting.

mod checks;

use clap::Args;
use serde::Serialize;

use crate::cli::{Format, output};
use crate::paths::DataDir;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    format: Format,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works, with a limit.
    Warn,
    /// It stands in the way of mounting.
    Fail,
}

/// One line of the doctor's.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    state: State,
    found: String,
    remedy: String,
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(name: &str, failure: Failure) -> Self {
        Self { name: name.into(), state: State::Fail, found: failure.cause, remedy: failure.remedy }
    }
}

pub(crate) fn run(data: &DataDir, args: &DoctorArgs) -> Result<Exit, Failure> {
    let found = checks::all(data);
    if args.format.json {
        output::json(&found)?;
    } else {
        output::print(&describe(&found))?;
    }
    let fails = found.iter().any(|c| c.state == State::Fail);
    Ok(if fails { Exit::Failed } else { Exit::Ok })
}

fn describe(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|c| {
            let state = match c.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            let more =
                if c.remedy.is_empty() { String::new() } else { format!("; try: {}", c.remedy) };
            vec![state.to_owned(), c.name.clone(), format!("{}{more}", c.found)]
        })
        .collect();
    output::table(&rows)
}
