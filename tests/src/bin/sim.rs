//! `sim run|replay|canaries`: whole clusters from one seed; see `tests::sim`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(tests::sim::command::main(&arguments))
}
