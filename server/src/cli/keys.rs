//! `keys`: key files and escrow key pairs.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use strongroom::keys::{EscrowSecret, KeyFile};

use super::exit::Outcome;
use super::output::{self, Format};

/// `keys …`
#[derive(Subcommand, Debug)]
pub enum KeysVerb {
    /// Make a key file for a node (development: whoever can read the file can read the data)
    Init {
        /// New file, mode 0600. Keep it off the disk the data is on
        file: PathBuf,
    },
    /// Make an escrow key pair: the public half goes to whoever makes backups, the secret half may restore
    Escrow {
        /// New file for the secret half, mode 0600
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
    /// Print the public half of an escrow key pair
    Recipient {
        /// File with the secret half
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
}

/// Runs `keys`.
pub fn run(verb: &KeysVerb, format: Format) -> Outcome {
    let (what, recipient) = match verb {
        KeysVerb::Init { file } => {
            KeyFile::create(file)?;
            (
                format!(
                    "{} made: without it nothing opens the data; keep a copy elsewhere",
                    file.display()
                ),
                None,
            )
        }
        KeysVerb::Escrow { secret } => {
            let pair = EscrowSecret::generate()?;
            pair.save(secret)?;
            let text = pair.recipient().to_text();
            (text.clone(), Some(text))
        }
        KeysVerb::Recipient { secret } => {
            let text = EscrowSecret::load(secret)?.recipient().to_text();
            (text.clone(), Some(text))
        }
    };
    match (format, recipient) {
        (Format::Json, Some(recipient)) => output::json(json!({ "recipient": recipient })),
        (Format::Json, None) => output::json(json!({ "created": true })),
        (Format::Table, _) => output::line(&what),
    }
    Ok(())
}
