//! `certs`: authorities and certificates for development and small installations; see `pki`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::exit::{Failure, Outcome};
use super::output::{self, Format};
use super::pki::{Authorities, DAYS_MAX, Trust};

/// Flags.
#[derive(Args, Debug)]
pub struct CertsArgs {
    /// Directory: its three authorities are made if missing, and used again
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Issue a node's certificates: its name and the hosts it answers to, `db1=db1.example.org,10.0.0.5`
    #[arg(long = "node", value_name = "NAME=HOST,…")]
    nodes: Vec<String>,
    /// Issue an operator's certificate, role admin
    #[arg(long = "operator", value_name = "NAME")]
    operators: Vec<String>,
    /// Lifetime of what is issued
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
}

/// Makes what is missing, issues what is asked for.
pub fn run(args: &CertsArgs, format: Format) -> Outcome {
    let mut wanted = Vec::new();
    for node in &args.nodes {
        let (name, hosts) = node
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--node {node}: NAME=HOST,HOST is wanted")))?;
        let hosts: Vec<String> = hosts
            .split(',')
            .map(str::to_owned)
            .filter(|host| !host.is_empty())
            .collect();
        wanted.push((name, hosts));
    }
    let authorities = Authorities::open(&args.dir, args.days)?;
    let mut rows = Vec::new();
    for trust in Trust::ALL {
        let root = authorities.root(trust);
        rows.push((
            "authority",
            trust.name(),
            root.clone(),
            root.with_extension("key"),
        ));
    }
    for (name, hosts) in wanted {
        for (trust, pair) in authorities.node(name, &hosts)? {
            rows.push(("node", trust.name(), pair.cert, pair.key));
        }
    }
    for name in &args.operators {
        let pair = authorities.operator(name)?;
        rows.push(("operator", Trust::Admin.name(), pair.cert, pair.key));
    }
    match format {
        Format::Json => output::json(json!({
            "days": args.days,
            "certificates": rows.iter().map(|(holder, trust, cert, key)| json!({
                "holder": holder, "trust": trust, "cert": cert, "key": key,
            })).collect::<Vec<_>>(),
        })),
        Format::Table => output::table(
            &["holder", "trust", "certificate", "private key"],
            rows.into_iter().map(|(holder, trust, cert, key)| {
                vec![
                    holder.to_owned(),
                    trust.to_owned(),
                    cert.display().to_string(),
                    key.display().to_string(),
                ]
            }),
        ),
    }
    Ok(())
}
