//! The program: it passes its arguments on to [`pgsluice::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pgsluice::cli::main()
}
