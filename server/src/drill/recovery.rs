//! Delete a tenant, back up, restore, compare.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use strongroom::keys::{EscrowSecret, KeyFile};
use strongroom::{Engine, ErrorKind};
use strongroom_client::proto::admin::{CreateBackupRequest, CreateBackupResponse};
use strongroom_client::{Client, Kind, RangeOptions};

use super::{Drill, PATIENCE, compare};
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::output;

/// The tenant that is gone.
pub struct Deleted {
    /// Index in the data.
    tenant: usize,
    /// Its id, never given out again.
    id: u64,
}

/// Names of what the run makes in its directory.
const OLDER: &str = "backup-before-delete";
const BACKUP: &str = "backup";
const SECRET: &str = "keys/escrow.secret";

impl Drill {
    fn text(&self, name: &str) -> String {
        self.dir().join(name).to_string_lossy().into_owned()
    }

    async fn backup(&self, name: &str) -> Outcome<CreateBackupResponse> {
        let secret = EscrowSecret::load(self.dir().join(SECRET))?;
        let request = CreateBackupRequest {
            directory: self.text(name),
            escrow_recipient: secret.recipient().to_text(),
            escrow_path: self.text(&format!("keys/{name}.escrow")),
        };
        self.admin()
            .await?
            .create_backup(request)
            .await
            .map_err(|error| Failure::from(error).during("backup"))
    }

    /// Backs up, deletes the smallest tenant, and tries to read it in every way that is left.
    pub async fn delete(&mut self, clients: &[Client]) -> Outcome<Deleted> {
        EscrowSecret::generate()?.save(self.dir().join(SECRET))?;
        self.backup(OLDER).await?;
        let tenant = self.data.smallest();
        let (name, entries) = match self.data.tenants.get(tenant) {
            Some(tenant) => (tenant.name.clone(), tenant.by_key.len() as u64),
            None => return Err(Failure::failed("no tenant to delete")),
        };
        let admin = self.admin().await?;
        let id = admin.delete_tenant(&name).await?.tenant_id;
        // Whoever deletes a tenant destroys the escrows that still hold its keys. The backup stays.
        let escrow = self.dir().join(format!("keys/{OLDER}.escrow"));
        std::fs::remove_file(&escrow).map_err(exit::at(&escrow))?;

        let mut readable = false;
        if let Some(client) = clients.get(tenant) {
            readable |= !refused(
                client.get(&self.data.keyspace, b"any").await,
                &[Kind::Unauthenticated],
            )?;
            readable |= match client.range(&self.data.keyspace, RangeOptions::all()).await {
                Ok(mut entries) => !refused(entries.next().await, &[Kind::Unauthenticated])?,
                Err(error) => !refused::<()>(Err(error), &[Kind::Unauthenticated])?,
            };
        }
        readable |= !refused(admin.create_token(&name).await, &[Kind::NotFound])?;
        // A new tenant of the same name is another one.
        let again = admin.create_tenant(&name).await?;
        readable |= again.id == id;
        let token = admin.create_token(&name).await?.token;
        let ca = std::fs::read(self.pair.tenants_ca())?;
        let endpoint = [self.pair.b.endpoint()?];
        for client in super::load::connect(&endpoint, &ca, &[token], PATIENCE).await? {
            let mut entries = client.range(&self.data.keyspace, RangeOptions::all()).await?;
            readable |= entries.next().await?.is_some();
        }
        admin.delete_tenant(&name).await?;
        self.report.deleted_tenant_readable = readable;
        self.tell.step(
            "delete",
            &format!(
                "one tenant with {} entries: its token, a new token and a new tenant of its name read {}",
                output::count(entries),
                if readable { "SOMETHING" } else { "nothing" }
            ),
        );
        Ok(Deleted { tenant, id })
    }

    /// Backs up, restores elsewhere, compares whole; then restores the older backup with today's keys.
    pub async fn restore(&mut self, clients: &[Client], deleted: &Deleted) -> Outcome {
        let made = self.backup(BACKUP).await?;
        self.report.backup_bytes = made.bytes;
        self.tell.step(
            "backup",
            &format!(
                "{} in {} files, without stopping; its keys apart, sealed, {}",
                output::bytes(made.bytes),
                made.files,
                output::bytes(made.escrow_bytes)
            ),
        );
        let skip = Some(deleted.tenant);
        let primary = compare::server(&self.data, &self.model, clients, skip).await?;
        self.report.lost_writes += primary.found.lost;
        self.report.wrong_values += primary.found.different + primary.found.foreign;
        let status = self.admin().await?.status().await?;

        let engine = self.restored(BACKUP)?;
        self.report.restore_fenced = fenced(&engine, &self.data.keyspace)?;
        let identity = engine.status().database_id;
        engine.accept_restored()?;
        let copy = compare::engine(&self.data, &self.model, &engine, skip)?;
        engine.close()?;
        let own = identity.as_slice() != &*status.database_id;
        self.report.restore_equal =
            own && copy.found.equal() && copy.digest == primary.digest && primary.found.equal();
        self.tell.step(
            "restore",
            &format!(
                "fenced until accepted, {}; {} entries of {} tenants, {} the primary and what was written",
                if own {
                    "an identity of its own"
                } else {
                    "the SAME IDENTITY"
                },
                output::count(copy.found.entries),
                self.data.tenants.len() - 1,
                if self.report.restore_equal {
                    "equal to"
                } else {
                    "DIFFERENT from"
                }
            ),
        );

        // The older backup still holds the deleted tenant's ciphertext, and no key is left that opens it.
        let engine = self.restored(OLDER)?;
        let id = strongroom::TenantId(deleted.id);
        let name = self
            .data
            .tenants
            .get(deleted.tenant)
            .map_or("", |tenant| &tenant.name);
        let gone = [engine.tenant(name).err(), engine.tenant_by_id(id).err()];
        let gone = gone
            .iter()
            .all(|error| error.as_ref().is_some_and(|e| e.kind() == ErrorKind::NotFound));
        let rest = compare::engine(&self.data, &self.model, &engine, skip)?;
        engine.close()?;
        self.report.deleted_tenant_readable |= !gone;
        self.report.restore_equal &= rest.digest == primary.digest;
        self.tell.more(&format!(
            "the backup made before the deletion, opened with today's keys: the deleted tenant is {}, the rest {}",
            if gone { "unreadable" } else { "READABLE" },
            if rest.digest == primary.digest { "equal" } else { "DIFFERENT" }
        ));
        Ok(())
    }

    /// Restores a backup with the newest escrow, by the verb, and opens the result.
    fn restored(&self, name: &str) -> Outcome<Engine> {
        let (to, key) = (
            self.dir().join(format!("restored-{name}")),
            self.dir().join(format!("keys/{name}.key")),
        );
        let keys = KeyFile::create(&key)?;
        let done = Command::new(std::env::current_exe()?)
            .args(["restore", "-o", "json"])
            .args([Path::new("--from"), &self.dir().join(name)])
            .args([
                Path::new("--escrow"),
                &self.dir().join(format!("keys/{BACKUP}.escrow")),
            ])
            .args([Path::new("--secret"), &self.dir().join(SECRET)])
            .args([Path::new("--to"), &to])
            .args([Path::new("--key-file"), &key])
            .output()?;
        // What it printed is searched too.
        let printed = self.dir().join(format!("restore-{name}.log"));
        std::fs::write(&printed, [done.stdout.as_slice(), &done.stderr].concat())
            .map_err(exit::at(&printed))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(Failure::failed(format!(
                "restore ended ({}): {said}",
                done.status
            )));
        }
        Ok(Engine::builder(&to)
            .shared_keys(Arc::new(keys))
            .create_if_missing(false)
            .open()?)
    }
}

/// Whether a restored database that nobody accepted refuses to be written to.
fn fenced(engine: &Engine, keyspace: &str) -> Outcome<bool> {
    let first = engine
        .tenants()
        .into_iter()
        .next()
        .ok_or_else(|| Failure::failed("nothing was restored"))?;
    let keyspace = engine.tenant_by_id(first.id)?.open_keyspace(keyspace)?;
    Ok(engine.status().awaiting_acceptance && keyspace.put("written by nobody", "").is_err())
}

/// Whether a call was refused as it must be. Another error is a failure of the drill.
fn refused<T>(result: strongroom_client::Result<T>, kinds: &[Kind]) -> Outcome<bool> {
    match result {
        Ok(_) => Ok(false),
        Err(error) if kinds.contains(&error.kind()) => Ok(true),
        Err(error) => Err(Failure::from(error).during("reading what was deleted")),
    }
}
