//! The `atelier` program; everything is in the library.

fn main() -> std::process::ExitCode {
    mountd::cli::run()
}
