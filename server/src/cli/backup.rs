//! `backup create`, `restore`, `accept`: a copy and its keys, apart; both together a new database.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use strongroom::io::Io;
use strongroom::keys::{EscrowSecret, KeyFile};
use strongroom::{Engine, ErrorKind};
use strongroom_client::proto::admin::CreateBackupRequest;

use super::connect::AdminArgs;
use super::data::epoch;
use super::exit::{self, Exit, Failure, Outcome};
use super::output::{self, Format};

/// Longest escrow file read: far more than the keys of ten million tenants.
const ESCROW_BYTES_MAX: u64 = 4 << 30;

/// `backup …`
#[derive(Subcommand, Debug)]
pub enum BackupVerb {
    /// Copy the database, without stopping writes, and write its keys apart, sealed for whoever may restore
    Create {
        /// New directory for the copy, on the server's machine, absolute
        #[arg(long, value_name = "DIR")]
        directory: String,
        /// New file for the sealed keys, on the server's machine, absolute, outside the directory
        #[arg(long, value_name = "FILE")]
        escrow: String,
        /// Public half of an escrow key pair (`strongroom keys escrow`): srescrow1…
        #[arg(long, value_name = "TEXT")]
        recipient: String,
        #[command(flatten)]
        connection: AdminArgs,
    },
}

/// Runs `backup`. Works on a standby too: name it.
pub async fn backup(verb: BackupVerb, format: Format) -> Outcome {
    let BackupVerb::Create {
        directory,
        escrow,
        recipient,
        connection,
    } = verb;
    let client = connection.primary().await?;
    let request = CreateBackupRequest {
        directory,
        escrow_recipient: recipient,
        escrow_path: escrow,
    };
    let done = client.create_backup(request).await?;
    match format {
        Format::Json => output::json(json!({
            "epoch": done.epoch, "lsn": done.lsn, "seqno": done.seqno, "files": done.files,
            "bytes": done.bytes, "escrow_bytes": done.escrow_bytes,
        })),
        Format::Table => output::line(&format!(
            "{} in {} files, as of epoch {} position {}; keys apart, {}",
            output::bytes(done.bytes),
            done.files,
            epoch(done.epoch),
            done.lsn,
            output::bytes(done.escrow_bytes)
        )),
    }
    Ok(())
}

/// Flags of `restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// Directory of the backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// File with its keys, sealed
    #[arg(long, value_name = "FILE")]
    escrow: PathBuf,
    /// Secret half of the escrow key pair
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// New directory for the database
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Key file of the new database (`strongroom keys init`)
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Accept it at once: it takes writes from its first start on
    #[arg(long)]
    accept: bool,
}

/// Restores into a database with an identity of its own, fenced until accepted.
pub fn restore(args: &RestoreArgs, format: Format) -> Outcome {
    if !args.from.is_dir() {
        return Err(Failure::new(
            Exit::Absent,
            format!("{}: no such directory", args.from.display()),
        ));
    }
    let length = std::fs::metadata(&args.escrow)
        .map_err(exit::at(&args.escrow))?
        .len();
    if length > ESCROW_BYTES_MAX {
        return Err(Failure::failed(format!(
            "{}: too long to be an escrow",
            args.escrow.display()
        )));
    }
    let escrow = std::fs::read(&args.escrow).map_err(exit::at(&args.escrow))?;
    let secret = EscrowSecret::load(&args.secret)?;
    let keys = Arc::new(KeyFile::open(&args.key_file)?);
    let done = strongroom::restore(&args.from, &escrow, &secret, &args.to, keys.clone(), &Io::os()).map_err(
        |error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::new(
                Exit::WouldLose,
                format!(
                    "{}: restoring wants a new directory, and would overwrite what is there",
                    args.to.display()
                ),
            ),
            _ => Failure::from(error),
        },
    )?;
    if args.accept {
        let engine = Engine::builder(&args.to)
            .shared_keys(keys)
            .create_if_missing(false)
            .open()?;
        engine.accept_restored()?;
        engine.close()?;
    }
    match format {
        Format::Json => output::json(json!({
            "database_id": hex::encode(done.database_id), "files": done.files, "bytes": done.bytes,
            "accepted": args.accept,
        })),
        Format::Table => {
            output::line(&format!(
                "database {} restored: {} in {} files",
                hex::encode(done.database_id),
                output::bytes(done.bytes),
                done.files
            ));
            output::line(if args.accept {
                "Accepted: it takes writes."
            } else {
                "It is fenced: it serves reads, and takes writes after `strongroom accept`."
            });
        }
    }
    Ok(())
}

/// Flags of `accept`.
#[derive(Args, Debug)]
pub struct AcceptArgs {
    #[command(flatten)]
    connection: AdminArgs,
}

/// Lets a restored database, now served, take writes.
pub async fn accept(args: AcceptArgs, format: Format) -> Outcome {
    args.connection.one().await?.accept_restored().await?;
    match format {
        Format::Json => output::json(json!({ "accepted": true })),
        Format::Table => output::line("accepted: it takes writes"),
    }
    Ok(())
}
