//! `bench sync|mount|scale|journal|locks [--quick] [CONTENDER...]`: the figures that compare Atelier with others. Needs root.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use tests::bench::{Size, journal, locks, mount, scale, sync};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().position(|argument| argument == "--quick");
    let size = quick.map_or(Size::Full, |at| {
        arguments.remove(at);
        Size::Quick
    });
    let outcome = match arguments.split_first() {
        Some((what, only)) if what == "sync" => sync::run(size, only),
        Some((what, only)) if what == "mount" => mount::run(size, only),
        Some((what, only)) if what == "scale" => scale::run(size, only),
        Some((what, [])) if what == "journal" => journal::run(size),
        Some((what, [])) if what == "locks" => locks::run(size),
        _ => {
            eprintln!("usage: bench sync|mount|scale|journal|locks [--quick] [CONTENDER...]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
