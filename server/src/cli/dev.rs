//! `dev`: a pair on loopback with throw-away certificates and keys, until Ctrl-C.

use clap::Args;

use super::connect::{AdminProfile, Profile, TenantsProfile};
use super::exit::{self, Failure, Outcome};
use super::{files, output};
use crate::drill::nodes::Site;

/// Names of the two nodes.
const NAMES: [&str; 2] = ["north", "south"];

/// Flags.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Tenant that is made, with a token ready to use
    #[arg(long, default_value = "demo")]
    tenant: String,
}

/// Runs the pair until Ctrl-C, then removes everything.
pub async fn run(args: DevArgs) -> Outcome {
    let dir = tempfile::Builder::new()
        .prefix("strongroom-dev-")
        .tempdir()
        .map_err(|e| Failure::failed(format!("no temporary directory: {e}")))?;
    let site = Site::build(dir.path(), NAMES)?;
    let primary = site.start(NAMES[0], "serve").await?;
    let standby = site.start(NAMES[1], "standby").await?;
    let admin = site.admin(&primary).await?;
    site.in_sync(&admin).await?;
    admin.create_tenant(&args.tenant).await?;
    let token = admin.create_token(&args.tenant).await?.token;
    let token_file = dir.path().join("token");
    files::secret(&token_file, token.as_bytes())?;

    let certs = dir.path().join("certs");
    let nodes = [&primary, &standby];
    let profile = Profile {
        schema: 1,
        tenants: TenantsProfile {
            endpoints: nodes.iter().map(|node| node.tenants.clone()).collect(),
            ca: Some(certs.join("tenants-ca.pem")),
            token_file: Some(token_file),
        },
        admin: AdminProfile {
            nodes: nodes
                .iter()
                .map(|node| (node.name.to_owned(), node.admin.clone()))
                .collect(),
            ca: Some(certs.join("admin-ca.pem")),
            cert: Some(certs.join("operator").join("admin.pem")),
            key: Some(certs.join("operator").join("admin.key")),
        },
    };
    let path = dir.path().join("profile.json");
    let text = serde_json::to_string_pretty(&profile).map_err(|e| Failure::failed(e.to_string()))?;
    std::fs::write(&path, text).map_err(exit::at(&path))?;

    output::line(&format!(
        "A primary (north) and a standby (south), in {}",
        dir.path().display()
    ));
    output::line("In another terminal:");
    output::line(&format!("  export STRONGROOM_PROFILE={}", path.display()));
    output::line("  strongroom put notes hello world");
    output::line("  strongroom get notes hello");
    output::line("  strongroom status");
    output::line("Ctrl-C stops both and removes everything.");
    tokio::signal::ctrl_c()
        .await
        .map_err(|e| Failure::failed(format!("waiting for Ctrl-C: {e}")))?;
    drop(admin);
    standby.stop().await?;
    primary.stop().await
}
