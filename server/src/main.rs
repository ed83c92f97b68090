//! The one binary, `strongroom`: server and operator command line.
#![forbid(unsafe_code)]

mod cli;
mod drill;

fn main() -> std::process::ExitCode {
    strongroom_server::install_crypto_provider();
    cli::main()
}
