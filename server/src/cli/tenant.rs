//! `tenant create|list|delete` and `token create|revoke|list`, at the primary.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use strongroom_client::proto::admin::Keyspace;
use strongroom_client::proto::admin::delete_tenant_response::Root;
use strongroom_client::proto::admin::keyspace::Keep as Kept;
use strongroom_client::proto::admin::set_retention_request::Keep;

use super::connect::AdminArgs;
use super::exit::{Failure, Outcome};
use super::files;
use super::output::{self, Format};

/// Tenants asked for at a time.
const PAGE: u32 = 10_000;

/// `tenant …`
#[derive(Subcommand, Debug)]
pub enum TenantVerb {
    /// Create a tenant with keys of its own
    Create {
        /// Name: 1 to 255 bytes
        name: String,
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// List the tenants, in order of id
    List {
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// What a tenant takes, its quota, and its keyspaces with what is set of them
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// Set how many bytes a tenant may take before its puts are refused
    Quota {
        /// Name
        name: String,
        /// So many bytes, in tables, in value files and in memory
        #[arg(long, required_unless_present = "none")]
        bytes: Option<u64>,
        /// No quota
        #[arg(long, conflicts_with = "bytes")]
        none: bool,
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// Set how long a keyspace keeps what is put into it; counts for what is there already
    Retention {
        /// Name of the tenant
        name: String,
        /// Keyspace, created if missing
        keyspace: String,
        /// So many days of 24 hours
        #[arg(long, required_unless_present_any = ["months", "none"])]
        days: Option<u32>,
        /// So many calendar months, by UTC
        #[arg(long, conflicts_with = "days")]
        months: Option<u32>,
        /// For ever; what an earlier retention has ended stays gone
        #[arg(long, conflicts_with_all = ["days", "months"])]
        none: bool,
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// Set from which length on values of a keyspace are kept apart from the tree; counts as data is written anew
    Separate {
        /// Name of the tenant
        name: String,
        /// Keyspace, created if missing
        keyspace: String,
        /// From so many bytes on, 64 B to 64 MiB; 0: none are
        #[arg(long, required_unless_present = "default")]
        bytes: Option<u64>,
        /// As the node's configuration says
        #[arg(long, conflicts_with = "bytes")]
        default: bool,
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// Destroy a tenant's keys, and with them its data and tokens, for ever
    Delete {
        /// Name
        name: String,
        /// Go ahead without asking
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        connection: AdminArgs,
    },
}

/// Runs `tenant`.
pub async fn tenant(verb: TenantVerb, format: Format) -> Outcome {
    match verb {
        TenantVerb::Create { name, connection } => {
            let tenant = connection.primary().await?.create_tenant(&name).await?;
            match format {
                Format::Json => output::json(json!({ "tenant_id": tenant.id, "name": tenant.name })),
                Format::Table => output::line(&format!("created, id {}", tenant.id)),
            }
        }
        TenantVerb::List { connection } => {
            let client = connection.primary().await?;
            let mut tenants = Vec::new();
            loop {
                let after = tenants
                    .last()
                    .map_or(0, |tenant: &strongroom_client::proto::admin::Tenant| tenant.id);
                let (page, more) = client.list_tenants(after, PAGE).await?;
                let empty = page.is_empty();
                tenants.extend(page);
                if !more || empty {
                    break;
                }
            }
            match format {
                Format::Json => output::json(json!({
                    "tenants": tenants.iter().map(|t| json!({"tenant_id": t.id, "name": t.name})).collect::<Vec<_>>(),
                })),
                Format::Table => {
                    output::table(
                        &["id", "name"],
                        tenants.into_iter().map(|t| vec![t.id.to_string(), t.name]),
                    );
                }
            }
        }
        TenantVerb::Show { name, connection } => {
            let shown = connection.primary().await?.show_tenant(&name).await?;
            let kept = |keyspace: &Keyspace| match keyspace.keep {
                Some(Kept::Days(days)) => format!("{days} days"),
                Some(Kept::Months(months)) => format!("{months} months"),
                None => "for ever".to_owned(),
            };
            match format {
                Format::Json => output::json(json!({
                    "tenant_id": shown.id, "entries": shown.entries, "deletes": shown.deletes,
                    "table_bytes": shown.table_bytes, "memtable_entries": shown.memtable_entries,
                    "memtable_bytes": shown.memtable_bytes, "quota": shown.quota,
                    "keyspaces": shown.keyspaces.iter()
                        .map(|k| json!({"name": k.name, "kept": kept(k), "separate_bytes": k.separate_bytes}))
                        .collect::<Vec<_>>(),
                })),
                Format::Table => {
                    let (tables, memory) = (
                        output::bytes(shown.table_bytes),
                        output::bytes(shown.memtable_bytes),
                    );
                    output::line(&format!(
                        "id {}: {tables} in tables, {memory} in memory",
                        shown.id
                    ));
                    output::line(&match shown.quota {
                        Some(quota) => format!("quota {}", output::bytes(quota)),
                        None => "no quota".to_owned(),
                    });
                    let apart = |keyspace: &Keyspace| match keyspace.separate_bytes {
                        Some(0) => "none".to_owned(),
                        Some(bytes) => format!("from {}", output::bytes(bytes)),
                        None => "by default".to_owned(),
                    };
                    let rows = shown.keyspaces.iter();
                    let rows = rows.map(|k| vec![k.name.clone(), kept(k), apart(k)]);
                    output::table(&["keyspace", "kept", "values apart"], rows);
                }
            }
        }
        TenantVerb::Quota {
            name,
            bytes,
            none: _,
            connection,
        } => {
            connection.primary().await?.set_quota(&name, bytes).await?;
            match format {
                Format::Json => output::json(json!({ "name": name, "quota": bytes })),
                Format::Table => output::line("set"),
            }
        }
        TenantVerb::Retention {
            name,
            keyspace,
            days,
            months,
            none: _,
            connection,
        } => {
            let keep = days.map(Keep::Days).or(months.map(Keep::Months));
            let client = connection.primary().await?;
            client.set_retention(&name, &keyspace, keep).await?;
            match format {
                Format::Json => output::json(json!({
                    "name": name, "keyspace": keyspace, "days": days, "months": months,
                })),
                Format::Table => output::line("set"),
            }
        }
        TenantVerb::Separate {
            name,
            keyspace,
            bytes,
            default: _,
            connection,
        } => {
            let client = connection.primary().await?;
            client.set_separate_bytes(&name, &keyspace, bytes).await?;
            match format {
                Format::Json => output::json(json!({
                    "name": name, "keyspace": keyspace, "separate_bytes": bytes,
                })),
                Format::Table => output::line("set"),
            }
        }
        TenantVerb::Delete {
            name,
            yes,
            connection,
        } => {
            let question =
                format!("Destroy tenant {name:?}, its keys and all its data? This cannot be undone.");
            if !yes && !output::confirm(&question, "--yes")? {
                return Err(Failure::failed("not deleted"));
            }
            let done = connection.primary().await?.delete_tenant(&name).await?;
            let (destroyed, scheduled) = match done.root {
                Some(Root::ScheduledAtMs(at)) => (false, Some(at)),
                Some(Root::Destroyed(yes)) => (yes, None),
                None => (false, None),
            };
            match format {
                Format::Json => output::json(json!({
                    "tenant_id": done.tenant_id, "keystore_version": done.keystore_version,
                    "root_destroyed": destroyed, "root_destroyed_at_ms": scheduled,
                    "nodes": done.nodes.iter()
                        .map(|n| json!({"node": n.node, "confirmed": n.confirmed})).collect::<Vec<_>>(),
                })),
                Format::Table => {
                    output::line(&format!(
                        "deleted id {}: its keys are gone from keystore version {} on",
                        done.tenant_id, done.keystore_version
                    ));
                    for node in &done.nodes {
                        let state = if node.confirmed {
                            "has destroyed them"
                        } else {
                            "has NOT confirmed yet"
                        };
                        output::line(&format!("node {} {state}", node.node));
                    }
                    output::line("Escrow files made before still open its old backups: destroy them too.");
                }
            }
        }
    }
    Ok(())
}

/// `token …`
#[derive(Subcommand, Debug)]
pub enum TokenVerb {
    /// Issue a token for a tenant: shown once, stored only as a salted hash
    Create {
        /// The tenant's name
        tenant: String,
        /// Write the token to this file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        connection: AdminArgs,
    },
    /// Revoke a token, at once
    Revoke(RevokeArgs),
    /// List tokens: ids, never secrets
    List {
        /// Only of this tenant
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        connection: AdminArgs,
    },
}

/// Flags of `token revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// The token's id: 16 hexadecimal digits, the part before the dot
    token_id: String,
    #[command(flatten)]
    connection: AdminArgs,
}

/// Runs `token`.
pub async fn token(verb: TokenVerb, format: Format) -> Outcome {
    match verb {
        TokenVerb::Create {
            tenant,
            out,
            connection,
        } => {
            let made = connection.primary().await?.create_token(&tenant).await?;
            if let Some(path) = &out {
                files::secret(path, format!("{}\n", made.token).as_bytes()).map_err(|failure| {
                    failure.during(format!(
                        "token {} exists, but could not be written down",
                        made.token_id
                    ))
                })?;
            }
            match (format, out) {
                (Format::Json, Some(_)) => output::json(json!({ "token_id": made.token_id })),
                (Format::Json, None) => {
                    output::json(json!({ "token_id": made.token_id, "token": made.token }))
                }
                (Format::Table, Some(_)) => output::line(&format!("token {}", made.token_id)),
                (Format::Table, None) => output::line(&made.token),
            }
        }
        TokenVerb::Revoke(args) => {
            // The whole token is accepted too: only its id is sent.
            let id = args.token_id.split('.').next().unwrap_or_default();
            args.connection.primary().await?.revoke_token(id).await?;
            match format {
                Format::Json => output::json(json!({ "token_id": id, "revoked": true })),
                Format::Table => output::line(&format!("token {id} is revoked")),
            }
        }
        TokenVerb::List { tenant, connection } => {
            let tokens = connection.primary().await?.list_tokens(tenant.as_deref()).await?;
            match format {
                Format::Json => output::json(json!({
                    "tokens": tokens.iter().map(|t| json!({
                        "token_id": t.token_id, "tenant_id": t.tenant_id, "created_ms": t.created_ms,
                    })).collect::<Vec<_>>(),
                })),
                Format::Table => output::table(
                    &["token", "tenant", "created (ms)"],
                    tokens
                        .into_iter()
                        .map(|t| vec![t.token_id, t.tenant_id.to_string(), t.created_ms.to_string()]),
                ),
            }
        }
    }
    Ok(())
}
