//! How a verb finds its server: flags, or a profile file that holds the same.
//!
//! ```toml
//! schema = 1
//!
//! [tenants]                          # get put del scan load dump
//! endpoints = ["https://127.0.0.1:7300", "https://127.0.0.1:7400"]
//! ca = "pki/tenants-ca.pem"
//! token_file = "demo.token"
//!
//! [admin]                            # status promote tenant token backup accept
//! nodes = { a = "https://127.0.0.1:7301", b = "https://127.0.0.1:7401" }
//! ca = "pki/admin-ca.pem"
//! cert = "pki/operator/admin.pem"
//! key = "pki/operator/admin.key"
//! ```
//!
//! Relative paths are relative to the profile. `dev` writes one. A flag wins over the profile. Tokens and
//! keys are never flags: a token comes from a file or from `STRONGROOM_TOKEN`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::{Deserialize, Serialize};
use strongroom_client::proto::admin::{Role, StatusResponse};
use strongroom_client::{AdminClient, AdminConfig, Client, ClientConfig, Kind};

use super::exit::{self, Exit, Failure, Outcome};
use super::probe;

/// Environment variable with the token itself.
pub const TOKEN_ENV: &str = "STRONGROOM_TOKEN";

/// How long a node may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);

/// A profile file.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// 1.
    pub schema: u32,
    /// Of tenants' applications.
    #[serde(default)]
    pub tenants: TenantsProfile,
    /// Of operators.
    #[serde(default)]
    pub admin: AdminProfile,
}

/// `[tenants]`
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantsProfile {
    /// All nodes' tenant listeners.
    pub endpoints: Vec<String>,
    /// Authority of the servers' certificates.
    pub ca: Option<PathBuf>,
    /// File with the token.
    pub token_file: Option<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminProfile {
    /// Administration listeners by name of the node.
    pub nodes: BTreeMap<String, String>,
    /// Authority of the servers' certificates.
    pub ca: Option<PathBuf>,
    /// The operator's certificate, role admin.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl Profile {
    /// Reads a profile.
    pub fn read(path: &Path) -> Outcome<Profile> {
        let text = std::fs::read_to_string(path).map_err(exit::at(path))?;
        let bad = |why: String| Failure::usage(format!("profile {}: {why}", path.display()));
        let mut profile: Profile = Figment::from(Toml::string(&text))
            .extract()
            .map_err(|error| bad(error.to_string()))?;
        if profile.schema != 1 {
            return Err(bad(format!("schema {} is not 1", profile.schema)));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        let paths = [
            &mut profile.tenants.ca,
            &mut profile.tenants.token_file,
            &mut profile.admin.ca,
            &mut profile.admin.cert,
            &mut profile.admin.key,
        ];
        for path in paths.into_iter().flatten() {
            *path = base.join(&*path);
        }
        Ok(profile)
    }
}

impl Profile {
    /// As a file.
    pub fn to_toml(&self) -> String {
        // JSON's strings and arrays of them are TOML's; a table is written out.
        let text = |value: &dyn ToString| serde_json::Value::from(value.to_string()).to_string();
        let path = |name: &str, path: &Option<PathBuf>| match path {
            Some(path) => format!("{name} = {}\n", text(&path.display())),
            None => String::new(),
        };
        let endpoints: Vec<String> = self.tenants.endpoints.iter().map(|e| text(e)).collect();
        let nodes = self
            .admin
            .nodes
            .iter()
            .map(|(name, address)| format!("{} = {}", text(name), text(address)));
        let nodes: Vec<String> = nodes.collect();
        [
            format!(
                "schema = {}\n\n[tenants]\nendpoints = [{}]\n",
                self.schema,
                endpoints.join(", ")
            ),
            path("ca", &self.tenants.ca),
            path("token_file", &self.tenants.token_file),
            format!("\n[admin]\nnodes = {{ {} }}\n", nodes.join(", ")),
            path("ca", &self.admin.ca),
            path("cert", &self.admin.cert),
            path("key", &self.admin.key),
        ]
        .concat()
    }
}

/// Where the profile is.
#[derive(Args, Clone, Debug)]
pub struct ProfileArg {
    /// Profile file with addresses and certificates (`strongroom dev` writes one)
    #[arg(long, env = "STRONGROOM_PROFILE", value_name = "FILE")]
    profile: Option<PathBuf>,
}

impl ProfileArg {
    fn read(&self) -> Outcome<Profile> {
        self.profile
            .as_deref()
            .map_or_else(|| Ok(Profile::default()), Profile::read)
    }
}

/// How a data verb reaches its tenant.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection (the token comes from --token-file or STRONGROOM_TOKEN)")]
pub struct DataArgs {
    #[command(flatten)]
    profile: ProfileArg,
    /// Tenant listener; give all nodes' to follow a failover
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    addr: Vec<String>,
    /// Authority of the servers' certificates, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name in the servers' certificates, if it is not the host of --addr
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// File that holds the tenant's token
    #[arg(long, env = "STRONGROOM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Allow http:// addresses: the token crosses the wire in clear
    #[arg(long)]
    insecure: bool,
}

impl DataArgs {
    /// Connects to the primary.
    pub async fn connect(&self) -> Outcome<Client> {
        let profile = self.profile.read()?.tenants;
        let endpoints = if self.addr.is_empty() {
            profile.endpoints
        } else {
            self.addr.clone()
        };
        if endpoints.is_empty() {
            return Err(Failure::usage(
                "no server: give --addr HOST:PORT, or --profile FILE",
            ));
        }
        let token = token(self.token_file.as_deref(), profile.token_file.as_deref())?;
        let mut config = ClientConfig::new(endpoints, token);
        config.ca_pem = match self.ca.clone().or(profile.ca) {
            Some(path) => Some(read(&path)?),
            None if self.insecure => None,
            None => {
                return Err(Failure::usage(
                    "no authority for the server's certificate: give --ca FILE",
                ));
            }
        };
        config.server_name.clone_from(&self.server_name);
        config.insecure = self.insecure;
        Ok(Client::connect(config).await?)
    }
}

/// The token: from the flag's file, then the environment, then the profile's file.
fn token(flag: Option<&Path>, profile: Option<&Path>) -> Outcome<String> {
    let from = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(exit::at(path))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(Failure::new(
                Exit::Refused,
                format!("{}: holds no token", path.display()),
            ));
        }
        Ok(text.to_owned())
    };
    match (flag, std::env::var(TOKEN_ENV), profile) {
        (Some(path), _, _) => from(path),
        (None, Ok(token), _) if !token.trim().is_empty() => Ok(token.trim().to_owned()),
        (None, _, Some(path)) => from(path),
        (None, _, None) => Err(Failure::new(
            Exit::Refused,
            format!("no token: give --token-file FILE or set {TOKEN_ENV}"),
        )),
    }
}

/// How an administration verb reaches its node.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct AdminArgs {
    #[command(flatten)]
    profile: ProfileArg,
    /// Administration listener; several: the primary among them
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    addr: Vec<String>,
    /// Only this node of the profile
    #[arg(long, value_name = "NAME", conflicts_with = "addr")]
    node: Option<String>,
    /// Authority of the server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Own certificate with the role admin, PEM
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of --cert, PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name in the server's certificate, if it is not the host of --addr
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Allow http:// addresses
    #[arg(long)]
    insecure: bool,
}

/// A node as the user named it.
pub struct Target {
    /// Its address.
    pub address: String,
    config: AdminConfig,
}

impl Target {
    /// Connects.
    pub async fn connect(&self) -> Outcome<AdminClient> {
        Ok(self.ask().await?.0)
    }

    /// Connects and asks for the status, within a few seconds: only an answer shows that the server
    /// takes the certificate.
    pub async fn ask(&self) -> Outcome<(AdminClient, StatusResponse)> {
        let both = async {
            let client = AdminClient::connect(self.config.clone()).await?;
            let status = client.status().await?;
            Ok::<_, strongroom_client::ClientError>((client, status))
        };
        let error = match tokio::time::timeout(ANSWER, both).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(Failure::failed(format!(
                    "{}: no answer within {ANSWER:?}",
                    self.address
                )));
            }
        };
        if error.kind() == Kind::Unavailable {
            let c = &self.config;
            let name = c.server_name.as_deref();
            if let Some(alert) = probe::refusal(&self.address, name, &c.ca_pem, &c.cert_pem, &c.key_pem).await
            {
                let text = format!("{}: the server refused the certificate ({alert})", self.address);
                return Err(Failure::new(Exit::Refused, text));
            }
        }
        Err(Failure::from(error).during(&self.address))
    }
}

impl AdminArgs {
    /// All nodes named.
    pub fn targets(&self) -> Outcome<Vec<Target>> {
        let profile = self.profile.read()?.admin;
        let addresses: Vec<String> = match (&self.node, self.addr.is_empty()) {
            (Some(node), _) => {
                let address = profile
                    .nodes
                    .get(node)
                    .ok_or_else(|| Failure::new(Exit::Absent, format!("the profile has no node {node:?}")))?;
                vec![address.clone()]
            }
            (None, false) => self.addr.clone(),
            (None, true) => profile.nodes.values().cloned().collect(),
        };
        if addresses.is_empty() {
            return Err(Failure::usage(
                "no node: give --addr HOST:PORT, or --profile FILE",
            ));
        }
        let file =
            |flag: &Option<PathBuf>, profile: Option<PathBuf>, name: &str| match flag.clone().or(profile) {
                Some(path) => read(&path),
                None if self.insecure => Ok(Vec::new()),
                None => Err(Failure::usage(format!(
                    "the administration listener wants mutual TLS: give --{name} FILE"
                ))),
            };
        let ca = file(&self.ca, profile.ca, "ca")?;
        let cert = file(&self.cert, profile.cert, "cert")?;
        let key = file(&self.key, profile.key, "key")?;
        Ok(addresses
            .into_iter()
            .map(|address| {
                let mut config = AdminConfig::new(address.as_str(), ca.clone(), cert.clone(), key.clone());
                config.server_name.clone_from(&self.server_name);
                config.insecure = self.insecure;
                Target { address, config }
            })
            .collect())
    }

    /// The one node named.
    pub async fn one(&self) -> Outcome<AdminClient> {
        match self.targets()?.as_slice() {
            [target] => target.connect().await,
            _ => Err(Failure::usage(
                "more than one node: say which with --addr or --node",
            )),
        }
    }

    /// The primary among the nodes named; if there is one only, that one, whatever it is.
    pub async fn primary(&self) -> Outcome<AdminClient> {
        let targets = self.targets()?;
        if let [target] = targets.as_slice() {
            return target.connect().await;
        }
        let mut seen = Vec::new();
        for target in &targets {
            match target.ask().await {
                Ok((client, status)) if status.role == Role::Primary as i32 && status.serving => {
                    return Ok(client);
                }
                Ok((_, status)) => seen.push(format!("{}: {}", target.address, status.summary)),
                Err(failure) => seen.push(failure.message),
            }
        }
        Err(Failure::new(
            Exit::NotPrimary,
            format!("none of the nodes is a serving primary\n{}", seen.join("\n")),
        ))
    }
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(exit::at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_resolves_its_paths_and_refuses_what_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        std::fs::write(
            &path,
            "schema = 1\n[tenants]\nendpoints = [\"https://h:1\"]\nca = \"x/ca.pem\"\n",
        )
        .unwrap();
        let profile = Profile::read(&path).unwrap();
        assert_eq!(profile.tenants.ca, Some(dir.path().join("x/ca.pem")));
        for bad in [
            "schema = 2",
            "schema = 1\nsurprise = 1",
            "[tenants]\nendpoints = []",
            "schema = 1\n[admin]\nca=1",
        ] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Profile::read(&path).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert_eq!(
            Profile::read(&dir.path().join("none")).unwrap_err().exit,
            Exit::Absent
        );
    }

    #[test]
    fn a_profile_that_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        let mut profile = Profile {
            schema: 1,
            ..Profile::default()
        };
        profile.tenants.endpoints = vec!["https://a:1".into(), "https://b:2".into()];
        profile.admin.nodes.insert("a".into(), "https://a:3".into());
        profile.admin.key = Some("/odd \"name\"\\key".into());
        std::fs::write(&path, profile.to_toml()).unwrap();
        let back = Profile::read(&path).unwrap();
        assert_eq!(back.tenants.endpoints, profile.tenants.endpoints);
        assert_eq!(
            (back.admin.nodes, back.admin.key),
            (profile.admin.nodes, profile.admin.key)
        );
    }

    #[test]
    fn the_flags_token_file_wins_and_an_empty_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "id.secret\n").unwrap();
        std::fs::write(&b, "\n").unwrap();
        assert_eq!(token(Some(&a), Some(&b)).unwrap(), "id.secret");
        assert_eq!(token(Some(&b), Some(&a)).unwrap_err().exit, Exit::Refused);
    }
}
