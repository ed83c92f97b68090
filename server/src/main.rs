//! `strongroom`: server and operator command line, one binary. One verb a file, under `cli/`; `drill/` is the
//! main command.

mod cli;
mod drill;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cli::exit::{Exit, Outcome};
use cli::output::Format;

/// Sealed key-value storage for many tenants, with a hot standby and backups that are shown to restore.
#[derive(Parser, Debug)]
#[command(name = "strongroom", version, max_term_width = 100)]
struct Arguments {
    /// How to print: tables for people, one JSON object for programs
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t)]
    format: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// The whole story on this machine: load, kill the primary, promote, verify, back up, restore, compare
    Drill(drill::DrillArgs),
    /// A primary and a standby on loopback with throw-away certificates and keys, ready to talk to
    Dev(cli::dev::DevArgs),
    /// Run a node from its configuration
    Serve(cli::serve::ServeArgs),
    /// Run a node that begins as a standby
    Standby(cli::serve::ServeArgs),
    /// Roles, epochs and positions of the nodes
    Status(cli::status::StatusArgs),
    /// Make a standby the primary; shows what could be lost, and asks
    Promote(cli::promote::PromoteArgs),
    /// Create, list and delete tenants
    #[command(subcommand)]
    Tenant(cli::tenant::TenantVerb),
    /// Create, revoke and list tenants' tokens
    #[command(subcommand)]
    Token(cli::tenant::TokenVerb),
    /// Read a value
    Get(cli::data::GetArgs),
    /// Store a value
    Put(cli::data::PutArgs),
    /// Remove a key
    Del(cli::data::DelArgs),
    /// List entries
    Scan(cli::scan::ScanArgs),
    /// Load NDJSON
    Load(cli::load::LoadArgs),
    /// Write a keyspace as NDJSON
    Dump(cli::scan::DumpArgs),
    /// Make a backup
    #[command(subcommand)]
    Backup(cli::backup::BackupVerb),
    /// Make a new, fenced database of a backup and its escrow
    Restore(cli::backup::RestoreArgs),
    /// Let a restored database take writes
    Accept(cli::backup::AcceptArgs),
    /// Make key files and escrow key pairs
    #[command(subcommand)]
    Keys(cli::keys::KeysVerb),
    /// Make certificates for nodes and operators
    Certs(cli::certs::CertsArgs),
    /// Check disk, key file, certificates, lock and configuration
    Doctor(cli::doctor::DoctorArgs),
    /// Show the headers of a Strongroom file, never its content
    Inspect(cli::inspect::InspectArgs),
}

fn main() -> ExitCode {
    strongroom_server::install_crypto_provider();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            return if usage {
                Exit::Usage.into()
            } else {
                Exit::Ok.into()
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("strongroom: no runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(run(arguments.verb, arguments.format));
    // Whatever a verb left running ends with the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("strongroom: {failure}");
            failure.exit.into()
        }
    }
}

async fn run(verb: Verb, format: Format) -> Outcome {
    match verb {
        Verb::Drill(args) => drill::run(args, format).await,
        Verb::Dev(args) => cli::dev::run(args).await,
        Verb::Serve(args) => cli::serve::run(args, false).await,
        Verb::Standby(args) => cli::serve::run(args, true).await,
        Verb::Status(args) => cli::status::run(args, format).await,
        Verb::Promote(args) => cli::promote::run(args, format).await,
        Verb::Tenant(verb) => cli::tenant::tenant(verb, format).await,
        Verb::Token(verb) => cli::tenant::token(verb, format).await,
        Verb::Get(args) => cli::data::get(args, format).await,
        Verb::Put(args) => cli::data::put(args, format).await,
        Verb::Del(args) => cli::data::del(args, format).await,
        Verb::Scan(args) => cli::scan::scan(args, format).await,
        Verb::Load(args) => cli::load::run(args, format).await,
        Verb::Dump(args) => cli::scan::dump(args, format).await,
        Verb::Backup(verb) => cli::backup::backup(verb, format).await,
        Verb::Restore(args) => cli::backup::restore(&args, format),
        Verb::Accept(args) => cli::backup::accept(args, format).await,
        Verb::Keys(verb) => cli::keys::run(&verb, format),
        Verb::Certs(args) => cli::certs::run(&args, format),
        Verb::Doctor(args) => cli::doctor::run(&args, format),
        Verb::Inspect(args) => cli::inspect::run(&args, format),
    }
}
