//! `doctor`: what a node needs from its machine, checked before or while it runs. Changes nothing but a
//! scratch file in the data directory, which it removes.
//!
//! ```text
//! configuration   parses, and means something
//! disk            fdatasync costs what stable storage costs; not in memory; space left
//! key file        there, whole, its owner's only, on another file system than the data
//! certificates    parse, are valid now and for a while, carry the role, belong to their keys' owner only
//! lock            which process has the directory open
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use strongroom::keys::KeyFile;
use strongroom_server::config::Config;
use x509_parser::pem::Pem;

use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Format};
use super::pki::{ROLE_ADMIN, ROLE_REPLICA};

/// Syncs measured.
const SYNCS: usize = 100;
/// No device known writes and confirms in less; a cache that lies does.
const SYNC_IMPLAUSIBLE: Duration = Duration::from_micros(10);
/// Every commit waits for this: slower makes the service slow.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// Less space than this is soon none.
const SPACE_LOW: u64 = 1 << 30;
/// A certificate that ends sooner wants renewing.
const DAYS_LOW: i64 = 14;
/// File systems that live in memory: tmpfs, ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Flags.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Configuration of the node: checks everything it names
    #[arg(long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check this data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Check this key file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Check these certificates
    #[arg(long = "cert", value_name = "FILE")]
    certs: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

struct Finding {
    check: String,
    verdict: Verdict,
    text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: impl Into<String>, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Finding {
            check: check.into(),
            verdict,
            text: text.into(),
        });
    }
}

/// Checks. Exit 3 if anything fails; warnings alone are exit 0.
pub fn run(args: &DoctorArgs, format: Format) -> Outcome {
    let mut findings = Findings::default();
    let mut data_dir = args.data_dir.clone();
    let mut key_file = args.key_file.clone();
    let mut certs: Vec<(PathBuf, Option<&str>)> =
        args.certs.iter().map(|path| (path.clone(), None)).collect();
    let mut keys = Vec::new();
    if let Some(path) = &args.config {
        match Config::load(path, None) {
            Err(error) => findings.add("configuration", Verdict::Fail, error.to_string()),
            Ok(config) => {
                findings.add("configuration", Verdict::Ok, path.display().to_string());
                if let Some(tls) = &config.tenants.tls {
                    certs.push((tls.cert.clone(), None));
                    keys.push(tls.key.clone());
                }
                if let Some(tls) = &config.admin.tls {
                    certs.extend([(tls.cert.clone(), None), (tls.client_ca.clone(), None)]);
                    keys.push(tls.key.clone());
                }
                if let Some(tls) = &config.replication.tls {
                    certs.extend([(tls.cert.clone(), Some(ROLE_REPLICA)), (tls.ca.clone(), None)]);
                    keys.push(tls.key.clone());
                }
                data_dir = data_dir.or(Some(config.node.data_dir));
                key_file = key_file.or(Some(config.keys.file));
            }
        }
    }
    if args.config.is_none() && data_dir.is_none() && key_file.is_none() && certs.is_empty() {
        return Err(Failure::usage(
            "nothing to check: give --config FILE, or --data-dir, --key-file, --cert",
        ));
    }
    if let Some(dir) = &data_dir {
        disk(dir, &mut findings);
        lock(dir, &mut findings);
    }
    if let Some(file) = &key_file {
        key(file, data_dir.as_deref(), &mut findings);
    }
    for (path, role) in &certs {
        certificate(path, *role, &mut findings);
    }
    for path in &keys {
        private(path, "private key", &mut findings);
    }

    let worst = findings
        .0
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Ok);
    let name = |verdict| match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warning",
        Verdict::Fail => "FAILED",
    };
    match format {
        Format::Json => output::json(json!({
            "healthy": worst < Verdict::Fail,
            "findings": findings.0.iter().map(|f| json!({
                "check": f.check, "verdict": name(f.verdict).to_lowercase(), "text": f.text,
            })).collect::<Vec<_>>(),
        })),
        Format::Table => output::table(
            &["check", "verdict", ""],
            findings
                .0
                .iter()
                .map(|f| vec![f.check.clone(), name(f.verdict).to_owned(), f.text.clone()]),
        ),
    }
    let failed = findings
        .0
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail)
        .count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Unhealthy, "1 check failed")),
        n => Err(Failure::new(Exit::Unhealthy, format!("{n} checks failed"))),
    }
}

/// The directory itself, or the nearest one above it that exists.
fn existing(dir: &Path) -> &Path {
    dir.ancestors()
        .find(|dir| !dir.as_os_str().is_empty() && dir.is_dir())
        .unwrap_or(Path::new("."))
}

fn disk(dir: &Path, findings: &mut Findings) {
    let place = existing(dir);
    match rustix::fs::statfs(place) {
        Ok(about) if IN_MEMORY.contains(&(about.f_type as u64)) => {
            let text = format!(
                "{} is in memory: nothing there survives a restart",
                place.display()
            );
            findings.add("disk", Verdict::Fail, text);
        }
        Ok(about) => {
            let free = about.f_bavail.saturating_mul(about.f_bsize as u64);
            let verdict = if free < SPACE_LOW {
                Verdict::Warn
            } else {
                Verdict::Ok
            };
            findings.add("space", verdict, format!("{} free", output::bytes(free)));
        }
        Err(error) => findings.add("space", Verdict::Fail, format!("{}: {error}", place.display())),
    }
    match syncs(place) {
        Ok((median, slowest)) => {
            let figures = format!(
                "fdatasync takes {} (slowest {})",
                output::span(median),
                output::span(slowest)
            );
            if median < SYNC_IMPLAUSIBLE {
                let doubt = "faster than any device: something confirms before data is on stable storage, and a \
                             power failure would lose acknowledged writes";
                findings.add("sync", Verdict::Warn, format!("{figures}: {doubt}"));
            } else if median > SYNC_SLOW {
                findings.add(
                    "sync",
                    Verdict::Warn,
                    format!("{figures}: every commit waits for one"),
                );
            } else {
                findings.add("sync", Verdict::Ok, figures);
            }
        }
        Err(error) => findings.add("sync", Verdict::Fail, format!("{}: {error}", place.display())),
    }
}

/// Median and slowest of writing 4 KiB at the end of a file and syncing it.
fn syncs(dir: &Path) -> std::io::Result<(Duration, Duration)> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let at = |i: usize| times.get(i).copied().unwrap_or_default();
    Ok((at(SYNCS / 2), at(SYNCS - 1)))
}

/// The engine holds `LOCK` in its directory while it is open.
fn lock(dir: &Path, findings: &mut Findings) {
    let path = dir.join("LOCK");
    match OpenOptions::new().read(true).open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = if dir.join("CURRENT").exists() {
                "no process has it open"
            } else {
                "no database there yet"
            };
            findings.add("lock", Verdict::Ok, text);
        }
        Err(error) => findings.add("lock", Verdict::Fail, format!("{}: {error}", path.display())),
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => findings.add("lock", Verdict::Ok, "no process has it open"),
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let text = format!("process {} has it open: another one cannot start", holder.trim());
                findings.add("lock", Verdict::Ok, text);
            }
            Err(TryLockError::Error(error)) => {
                findings.add("lock", Verdict::Warn, format!("{}: {error}", path.display()));
            }
        },
    }
}

fn key(path: &Path, data_dir: Option<&Path>, findings: &mut Findings) {
    match KeyFile::open(path) {
        Ok(_) => findings.add("key file", Verdict::Ok, path.display().to_string()),
        Err(error) => findings.add("key file", Verdict::Fail, error.to_string()),
    }
    private(path, "key file", findings);
    let device = |path: &Path| std::fs::metadata(path).ok().map(|about| about.dev());
    if let Some(dir) = data_dir
        && device(path).is_some()
        && device(path) == device(existing(dir))
    {
        let text = "on the same file system as the data: whoever takes the disk takes the key with it";
        findings.add("key file", Verdict::Warn, text);
    }
}

/// A file with a secret is for its owner alone.
fn private(path: &Path, what: &str, findings: &mut Findings) {
    match std::fs::metadata(path) {
        Err(error) => findings.add(what, Verdict::Fail, format!("{}: {error}", path.display())),
        Ok(about) if about.permissions().mode() & 0o077 != 0 => {
            let mode = about.permissions().mode() & 0o777;
            let text = format!(
                "{}: mode {mode:o}, others than its owner may read or change it",
                path.display()
            );
            findings.add(what, Verdict::Fail, text);
        }
        Ok(_) => findings.add(
            what,
            Verdict::Ok,
            format!("{}: for its owner only", path.display()),
        ),
    }
}

fn certificate(path: &Path, role: Option<&str>, findings: &mut Findings) {
    let shown = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return findings.add("certificate", Verdict::Fail, format!("{shown}: {error}")),
    };
    let mut count = 0;
    for pem in Pem::iter_from_reader(std::io::BufReader::new(file)) {
        count += 1;
        let Ok(pem) = pem else {
            return findings.add("certificate", Verdict::Fail, format!("{shown}: not PEM"));
        };
        let cert = match pem.parse_x509() {
            Ok(cert) => cert,
            Err(error) => {
                return findings.add("certificate", Verdict::Fail, format!("{shown}: {error}"));
            }
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()) as i64;
        let (from, to) = (
            cert.validity().not_before.timestamp(),
            cert.validity().not_after.timestamp(),
        );
        let days = (to - now).div_euclid(86_400);
        let names: Vec<String> = cert
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|san| san.value.general_names.iter().map(name).collect())
            .unwrap_or_default();
        let has = |role: &str| names.iter().any(|name| name == role);
        let roles: Vec<&str> = [ROLE_REPLICA, ROLE_ADMIN]
            .into_iter()
            .filter(|role| has(role))
            .collect();
        let (verdict, text) = if now < from {
            (Verdict::Fail, "not valid yet: check the clock".to_owned())
        } else if now >= to {
            (Verdict::Fail, "has ended".to_owned())
        } else if let Some(role) = role.filter(|role| count == 1 && !has(role)) {
            (Verdict::Fail, format!("lacks the name {role}"))
        } else if days < DAYS_LOW {
            (Verdict::Warn, format!("ends in {days} days"))
        } else {
            (Verdict::Ok, format!("valid for {days} days"))
        };
        let names = if roles.is_empty() {
            names.join(", ")
        } else {
            roles.join(", ")
        };
        let names = if names.is_empty() {
            String::new()
        } else {
            format!(" ({names})")
        };
        findings.add("certificate", verdict, format!("{shown}: {text}{names}"));
    }
    if count == 0 {
        findings.add(
            "certificate",
            Verdict::Fail,
            format!("{shown}: holds no certificate"),
        );
    }
}

fn name(name: &x509_parser::extensions::GeneralName<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => (*text).to_owned(),
        GeneralName::IPAddress([a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pki::Authorities;

    fn verdicts(findings: &Findings) -> Vec<(String, Verdict)> {
        findings.0.iter().map(|f| (f.check.clone(), f.verdict)).collect()
    }

    #[test]
    fn a_certificate_without_its_role_fails() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = Authorities::open(dir.path(), 30).unwrap();
        let node = authorities.node("a", &["localhost".into()]).unwrap();
        let mut findings = Findings::default();
        for (_, pair) in &node {
            certificate(&pair.cert, Some(ROLE_REPLICA), &mut findings);
        }
        let found: Vec<Verdict> = findings.0.iter().map(|f| f.verdict).collect();
        assert_eq!(found, [Verdict::Fail, Verdict::Ok, Verdict::Fail]);
        let mut findings = Findings::default();
        certificate(&dir.path().join("none"), None, &mut findings);
        certificate(&dir.path().join("a/admin.key"), None, &mut findings);
        assert!(
            verdicts(&findings)
                .iter()
                .all(|(_, verdict)| *verdict == Verdict::Fail),
            "{:?}",
            verdicts(&findings)
        );
    }

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let pair = Authorities::open(dir.path(), 2).unwrap().operator("ops").unwrap();
        let mut findings = Findings::default();
        certificate(&pair.cert, None, &mut findings);
        assert_eq!(verdicts(&findings), [("certificate".to_owned(), Verdict::Warn)]);
    }

    #[test]
    fn a_key_file_others_can_read_fails_and_a_wrong_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        KeyFile::create(&path).unwrap();
        let mut findings = Findings::default();
        key(&path, None, &mut findings);
        assert!(findings.0.iter().all(|f| f.verdict == Verdict::Ok));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(dir.path().join("other"), "hello").unwrap();
        let mut findings = Findings::default();
        key(&path, None, &mut findings);
        key(&dir.path().join("other"), None, &mut findings);
        assert_eq!(
            findings.0.iter().filter(|f| f.verdict == Verdict::Fail).count(),
            3
        );
    }
}
