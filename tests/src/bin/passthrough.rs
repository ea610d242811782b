//! `passthrough SOURCE MOUNT`: serves a directory through plain FUSE until it is unmounted.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [source, at] = arguments.as_slice() else {
        eprintln!("usage: passthrough SOURCE MOUNT");
        return ExitCode::from(2);
    };
    match tests::passthrough::serve(Path::new(source), Path::new(at)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
