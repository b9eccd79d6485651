//! The `starling` binary: everything is in the library, so that tests can drive it.

use std::process::ExitCode;

fn main() -> ExitCode {
    starling_sidecar::cli::main()
}
