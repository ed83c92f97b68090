//! The process that real faults are done to; see `strongroom_tests::faults`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match strongroom_tests::faults::child(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("failed {e}");
            ExitCode::FAILURE
        }
    }
}
