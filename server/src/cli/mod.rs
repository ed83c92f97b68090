//! The command line: verbs, and the flags all of them have.
//!
//! ```text
//! main > cli > one file a verb > client (over the network) or engine (restore)
//! ```
//!
//! Results go to standard output, everything else to standard error. No secret is ever a flag.

mod backup;
mod certs;
mod clear;
mod connect;
mod data;
mod dev;
mod doctor;
pub mod exit;
mod files;
mod form;
mod inspect;
mod keys;
mod load;
mod options;
pub mod output;
pub mod pair;
mod pki;
mod probe;
mod promote;
mod scan;
mod serve;
mod stats;
mod status;
mod tenant;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::drill;
pub use dev::ended as interrupted;
use exit::{Exit, Failure, Outcome};
use output::Format;

/// Encrypted multi-tenant key-value storage with a hot standby.
#[derive(Parser, Debug)]
#[command(version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Who reads the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 answered but unhealthy, 10 absent, 11 locked by \
another process, 12 key or credential refused, 13 not primary or fenced, 14 refused because data would be lost, \
15 outcome unknown, 16 a condition does not hold.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// The whole story on this machine: load, kill, promote, verify, delete, back up, restore, compare, search
    Drill(drill::DrillArgs),
    /// A primary and a standby on loopback with throw-away certificates and keys, ready to talk to
    Dev(dev::DevArgs),
    /// Run a node
    Serve(serve::ServeArgs),
    /// Run a node that begins as a standby
    Standby(serve::ServeArgs),
    /// What the nodes are doing, and whether all is well
    Status(status::StatusArgs),
    /// What a node's engine holds and does: levels, memory, log, flushes, compactions, stalls
    Stats(stats::StatsArgs),
    /// Show a node's options that can be changed while it runs, or change them until it is restarted
    Options(options::OptionsArgs),
    /// Make a standby the primary
    Promote(promote::PromoteArgs),
    /// Create, list and delete tenants
    #[command(subcommand)]
    Tenant(tenant::TenantVerb),
    /// Issue, revoke and list tenants' tokens
    #[command(subcommand)]
    Token(tenant::TokenVerb),
    /// Print the value of a key
    Get(data::GetArgs),
    /// Store a value
    Put(data::PutArgs),
    /// Remove a key
    Del(data::DelArgs),
    /// Remove every key of a range, by one operation
    DelRange(data::DelRangeArgs),
    /// Print entries in key order
    Scan(scan::ScanArgs),
    /// Load NDJSON into a keyspace
    Load(load::LoadArgs),
    /// Write a keyspace as NDJSON
    Dump(scan::DumpArgs),
    /// Copy the database while it runs
    #[command(subcommand)]
    Backup(backup::BackupVerb),
    /// Make a new, fenced database from a backup and its keys
    Restore(backup::RestoreArgs),
    /// Let a restored database take writes
    Accept(backup::AcceptArgs),
    /// Check disk, key file, certificates, lock and configuration
    Doctor(doctor::DoctorArgs),
    /// Headers of Strongroom's files, never content
    Inspect(inspect::InspectArgs),
    /// Read and check every byte of a database that is not running
    Verify(verify::VerifyArgs),
    /// Make key files and escrow key pairs
    #[command(subcommand)]
    Keys(keys::KeysVerb),
    /// Make authorities and certificates for development
    Certs(certs::CertsArgs),
}

/// Parses, runs, reports. Usage errors leave with code 2 by clap's hand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if std::env::var_os(strongroom_server::telemetry::LOG_VARIABLE).is_some() {
        strongroom_server::telemetry::init();
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("strongroom: {failure}");
            failure.exit.into()
        }
    }
}

async fn run(cli: Cli) -> Outcome {
    let format = cli.output;
    match cli.verb {
        Verb::Drill(args) => drill::run(args, format).await,
        Verb::Dev(args) => dev::run(args, format).await,
        Verb::Serve(args) => serve::run(args, false).await,
        Verb::Standby(args) => serve::run(args, true).await,
        Verb::Status(args) => status::run(args, format).await,
        Verb::Stats(args) => stats::run(args, format).await,
        Verb::Options(args) => options::run(args, format).await,
        Verb::Promote(args) => promote::run(args, format).await,
        Verb::Tenant(verb) => tenant::tenant(verb, format).await,
        Verb::Token(verb) => tenant::token(verb, format).await,
        Verb::Get(args) => data::get(args, format).await,
        Verb::Put(args) => data::put(args, format).await,
        Verb::Del(args) => data::del(args, format).await,
        Verb::DelRange(args) => data::del_range(args, format).await,
        Verb::Scan(args) => scan::scan(args, format).await,
        Verb::Load(args) => load::run(args, format).await,
        Verb::Dump(args) => scan::dump(args, format).await,
        Verb::Backup(verb) => backup::backup(verb, format).await,
        Verb::Restore(args) => backup::restore(&args, format),
        Verb::Accept(args) => backup::accept(args, format).await,
        Verb::Doctor(args) => doctor::run(&args, format),
        Verb::Inspect(args) => inspect::run(&args, format),
        Verb::Verify(args) => verify::run(&args, format),
        Verb::Keys(verb) => keys::run(&verb, format),
        Verb::Certs(args) => certs::run(&args, format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str();
                let secret = ["token", "password", "passphrase"].contains(&name) && arg.get_long().is_some();
                assert!(!secret, "{} --{name}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
