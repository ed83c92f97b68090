//! `doctor`: checks what a node stands on, before or while it runs. Changes nothing but a probe file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use strongroom::keys::KeyFile;
use strongroom_server::config::Config;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Format};
use super::pki::ROLE_REPLICA;

/// Syncs measured.
const SYNCS: u32 = 32;
/// No device that keeps what it was told to is faster than this; a volatile cache that ignores syncs is.
const SYNC_IMPLAUSIBLE: Duration = Duration::from_micros(8);
/// Slower than this, every durable write waits long.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// A certificate that ends sooner is worth a warning.
const EXPIRES_SOON: i64 = 14 * 24 * 3600;

/// Flags.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Configuration file of the node
    #[arg(long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Ok,
    Warning,
    Bad,
}

struct Finding {
    what: &'static str,
    health: Health,
    text: String,
}

/// Prints what was found. Exit 3 if anything is bad; warnings do not fail.
pub fn run(args: &DoctorArgs, format: Format) -> Outcome {
    let config = Config::load(&args.config, None)?;
    let mut findings = vec![Finding {
        what: "configuration",
        health: Health::Ok,
        text: format!("{} is valid", args.config.display()),
    }];
    findings.push(key_file(&config.keys.file));
    findings.push(disk(&config.node.data_dir));
    findings.push(lock(&config.node.data_dir));
    if let Some(tls) = &config.tenants.tls {
        findings.push(certificate("tenants certificate", &tls.cert, None));
    }
    if let Some(tls) = &config.admin.tls {
        findings.push(certificate("administration certificate", &tls.cert, None));
    }
    if let Some(tls) = &config.replication.tls {
        findings.push(certificate(
            "replication certificate",
            &tls.cert,
            Some(ROLE_REPLICA),
        ));
    }
    let worst = findings.iter().map(|f| f.health).max().unwrap_or(Health::Ok);
    match format {
        Format::Json => output::json(json!({
            "healthy": worst < Health::Bad,
            "findings": findings.iter().map(|f| json!({
                "what": f.what, "health": f.health.name(), "text": f.text,
            })).collect::<Vec<_>>(),
        })),
        Format::Table => output::table(
            &["what", "health", "finding"],
            findings
                .iter()
                .map(|f| vec![f.what.to_owned(), f.health.name().to_owned(), f.text.clone()]),
        ),
    }
    if worst < Health::Bad {
        Ok(())
    } else {
        Err(Failure::new(Exit::Unhealthy, "something is not as it must be"))
    }
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Bad => "bad",
        }
    }
}

fn key_file(path: &Path) -> Finding {
    let what = "key file";
    match KeyFile::open(path) {
        Err(error) => Finding {
            what,
            health: Health::Bad,
            text: error.to_string(),
        },
        Ok(file) => match file.is_exposed() {
            false => Finding {
                what,
                health: Health::Warning,
                text: "readable; a key file is for development: it cannot promise that a deletion is final"
                    .into(),
            },
            true => Finding {
                what,
                health: Health::Bad,
                text: "others can read it: chmod 600".into(),
            },
        },
    }
}

/// The nearest directory above that exists: where the data directory is or will be.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("."))
}

fn disk(data_dir: &Path) -> Finding {
    let what = "disk";
    let dir = existing(data_dir);
    match median_sync(dir) {
        Err(error) => Finding {
            what,
            health: Health::Bad,
            text: format!("{}: {error}", dir.display()),
        },
        Ok(median) => {
            let text = format!(
                "a 4 KiB append and sync takes {} here (median of {SYNCS})",
                output::span(median)
            );
            if median < SYNC_IMPLAUSIBLE {
                let text = format!(
                    "{text}: too fast to be true; syncs are probably ignored, and writes can be lost"
                );
                Finding {
                    what,
                    health: Health::Bad,
                    text,
                }
            } else if median > SYNC_SLOW {
                Finding {
                    what,
                    health: Health::Warning,
                    text: format!("{text}: every durable write waits that long"),
                }
            } else {
                Finding {
                    what,
                    health: Health::Ok,
                    text,
                }
            }
        }
    }
}

fn median_sync(dir: &Path) -> std::io::Result<Duration> {
    let mut file: File = tempfile::tempfile_in(dir)?;
    let mut took = Vec::new();
    for _ in 0..SYNCS {
        let since = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        took.push(since.elapsed());
    }
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied().unwrap_or_default())
}

fn lock(data_dir: &Path) -> Finding {
    let what = "lock";
    let path = data_dir.join("LOCK");
    let Ok(file) = File::open(&path) else {
        return Finding {
            what,
            health: Health::Ok,
            text: "no database there yet".into(),
        };
    };
    match file.try_lock() {
        Ok(()) => Finding {
            what,
            health: Health::Ok,
            text: "no process has the database open".into(),
        },
        Err(std::fs::TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let text = format!("open in a running process {}", holder.trim());
            Finding {
                what,
                health: Health::Ok,
                text,
            }
        }
        Err(std::fs::TryLockError::Error(error)) => Finding {
            what,
            health: Health::Bad,
            text: format!("{}: {error}", path.display()),
        },
    }
}

fn certificate(what: &'static str, path: &Path, role: Option<&str>) -> Finding {
    let bad = |text: String| Finding {
        what,
        health: Health::Bad,
        text: format!("{}: {text}", path.display()),
    };
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) => return bad(error.to_string()),
    };
    let Some(Ok(pem)) = Pem::iter_from_buffer(&content).next() else {
        return bad("not a PEM file".into());
    };
    let Ok(parsed) = pem.parse_x509() else {
        return bad("not a certificate".into());
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs() as i64);
    let left = parsed.validity().not_after.timestamp() - now;
    if left <= 0 {
        return bad("expired".into());
    }
    if parsed.validity().not_before.timestamp() > now {
        return bad("not valid yet: is the clock right?".into());
    }
    if let Some(role) = role {
        let names = parsed.subject_alternative_name().ok().flatten();
        let has = names.is_some_and(|names| {
            names
                .value
                .general_names
                .iter()
                .any(|name| matches!(name, GeneralName::URI(uri) if *uri == role))
        });
        if !has {
            return bad(format!("does not carry the role {role}"));
        }
    }
    let days = left / 86_400;
    if left < EXPIRES_SOON {
        return Finding {
            what,
            health: Health::Warning,
            text: format!("ends in {days} days"),
        };
    }
    Finding {
        what,
        health: Health::Ok,
        text: format!("valid for {days} days"),
    }
}
