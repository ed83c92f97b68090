//! `dev`: a pair to play with. Certificates, keys and data are thrown away at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::connect::{AdminProfile, Profile, TenantsProfile};
use super::exit::{self, Failure, Outcome};
use super::files;
use super::output::{self, Format};
use super::pair::Pair;

const PATIENCE: Duration = Duration::from_secs(60);

/// Flags.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Keep everything in this new directory instead of a temporary one that is removed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Tenant to create
    #[arg(long, default_value = "demo", value_name = "NAME")]
    tenant: String,
}

/// Runs until Ctrl-C.
pub async fn run(args: DevArgs, format: Format) -> Outcome {
    let (dir, temporary) = match &args.dir {
        Some(dir) => {
            std::fs::create_dir(dir).map_err(exit::at(dir))?;
            (dir.canonicalize().map_err(exit::at(dir))?, None)
        }
        None => {
            let temporary = tempfile::Builder::new().prefix("strongroom-dev-").tempdir()?;
            (temporary.path().to_path_buf(), Some(temporary))
        }
    };
    let mut interrupt = std::pin::pin!(ended());
    let mut pair = Pair::prepare(&dir, "")?;
    let begun = async {
        eprintln!("Starting a primary and a standby in {} …", dir.display());
        pair.start("info", PATIENCE).await?;
        profile(&pair, &dir, &args.tenant).await
    };
    // The only state that outlives an interruption here is the directory, which goes with its guard.
    let profile = tokio::select! {
        begun = begun => begun?,
        stopped = &mut interrupt => return stopped,
    };
    say(&pair, &profile, &args.tenant, format)?;
    tokio::select! {
        stopped = &mut interrupt => stopped?,
        failure = watch(&mut pair) => return Err(failure),
    }
    eprintln!("Stopping …");
    // The standby first: the primary has nobody left to wait for.
    let standby = pair.b.stop(PATIENCE).await;
    let primary = pair.a.stop(PATIENCE).await;
    drop(temporary);
    standby.and(primary)
}

/// Creates the tenant, writes its token and the profile.
async fn profile(pair: &Pair, dir: &Path, tenant: &str) -> Outcome<PathBuf> {
    let admin = pair.admin(&pair.a).await?;
    admin.create_tenant(tenant).await?;
    let token = admin.create_token(tenant).await?.token;
    files::secret(&dir.join("tenant.token"), format!("{token}\n").as_bytes())?;
    let [ca, cert, key] = pair.admin_files();
    let mut nodes = std::collections::BTreeMap::new();
    for node in [&pair.a, &pair.b] {
        nodes.insert(
            node.name.to_owned(),
            format!("https://{}", node.addresses()?.admin),
        );
    }
    let profile = Profile {
        schema: 1,
        tenants: TenantsProfile {
            endpoints: vec![pair.a.endpoint()?, pair.b.endpoint()?],
            ca: Some(pair.tenants_ca()),
            token_file: Some(dir.join("tenant.token")),
        },
        admin: AdminProfile {
            nodes,
            ca: Some(ca),
            cert: Some(cert),
            key: Some(key),
        },
    };
    let path = dir.join("profile.toml");
    files::public(&path, profile.to_toml().as_bytes())?;
    Ok(path)
}

fn say(pair: &Pair, profile: &Path, tenant: &str, format: Format) -> Outcome {
    if format == Format::Json {
        let mut nodes = Vec::new();
        for node in [&pair.a, &pair.b] {
            let addresses = node.addresses()?;
            nodes.push(json!({ "name": node.name, "tenants": addresses.tenants, "admin": addresses.admin }));
        }
        output::json(json!({ "dir": pair.dir, "profile": profile, "tenant": tenant, "nodes": nodes }));
        return Ok(());
    }
    let me = std::env::current_exe()?;
    let me = me.display();
    let (a, b) = (pair.a.addresses()?, pair.b.addresses()?);
    output::line(&format!(
        "Ready. Nothing here is kept.

  primary  a   tenants {}   administration {}
  standby  b   tenants {}   administration {}

In another terminal:

  export STRONGROOM_PROFILE={}
  {me} status
  {me} put greetings hello world --durability replicated
  {me} get greetings hello
  {me} scan greetings
  {me} tenant list
  {me} promote --node b            # after stopping a, or to see what it would cost: --dry-run

The profile's token is for tenant {tenant:?}. What the nodes print: {}/{{a,b}}/stderr.log
Ctrl-C stops both.",
        a.tenants,
        a.admin,
        b.tenants,
        b.admin,
        profile.display(),
        pair.dir.display(),
    ));
    Ok(())
}

/// Returns when both nodes have ended. One alone may: that is what a pair is for.
async fn watch(pair: &mut Pair) -> Failure {
    let mut said = false;
    loop {
        match (pair.a.alive(), pair.b.alive()) {
            (Ok(()), Ok(())) => {}
            (Err(failure), Ok(())) | (Ok(()), Err(failure)) if !said => {
                eprintln!("{failure}");
                said = true;
            }
            (Err(_), Err(failure)) => return failure,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Returns at Ctrl-C or SIGTERM.
pub async fn ended() -> Outcome {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
