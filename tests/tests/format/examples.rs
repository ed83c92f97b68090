//! The golden database of format 1, and the worked examples of docs/format.md, which are cut from it.
//!
//! `fixtures/v1` holds a closed database `db` with its key file `key`; the same database as a kill left it
//! just before, `killed`; a checkpoint `copy` of it, and the escrow of its keys with the secret that opens
//! it. Written once and never again as long as the format is 1: that they open and read is the promise to
//! users' databases. An example in the document is a fenced block that names a file, relative to `db`,
//! and an offset; each line holds hex bytes, then optionally two spaces and a comment:
//!
//! ````text
//! ```hex CURRENT 0
//! 53 54 52 47 52 4f 4f 4d  magic "STRGROOM"
//! 01 00                    format 1
//! ```
//! ````

use std::path::{Path, PathBuf};

use std::sync::Arc;

use strongroom::io::Io;
use strongroom::keys::{EscrowSecret, KeyFile};
use strongroom::{Engine, Error, Options, TenantOptions, restore};
use strongroom_tests::oracle::{Content, Entries, Spaces, read_all};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/fixtures/v1")
}

/// What the golden database holds, apart from what was written to make it.
fn golden_content() -> Content {
    let entries = |pairs: &[(&'static str, &'static str)]| -> Entries {
        pairs
            .iter()
            .map(|(k, v)| (k.as_bytes().into(), v.as_bytes().into()))
            .collect()
    };
    let activity = entries(&[
        ("u42/2026-11-20", "signed in"),
        ("u42/2026-11-22", "saved report.txt"),
    ]);
    let sessions = entries(&[("s/1", ""), ("s/2", "token")]);
    Content::from([
        (
            "acme".into(),
            Spaces::from([("activity".into(), activity), ("sessions".into(), sessions)]),
        ),
        ("empty".into(), Spaces::new()),
        (
            "zürich".into(),
            Spaces::from([("a".into(), entries(&[("only", "one")]))]),
        ),
    ])
}

fn write_golden(dir: &Path) -> Result<(), Error> {
    let engine = Engine::builder(dir.join("db"))
        .keys(KeyFile::create(dir.join("key"))?)
        .options(Options::tiny())
        .open()?;
    let acme = engine.create_tenant("acme", TenantOptions::default())?;
    let gone = engine.create_tenant("gone", TenantOptions::default())?;
    engine.create_tenant("empty", TenantOptions::default())?;
    let (activity, sessions) = (acme.keyspace("activity")?, acme.keyspace("sessions")?);
    acme.batch()
        .put(&activity, "u42/2026-11-20", "signed in")
        .put(&activity, "u42/2026-11-21", "deleted below")
        .put(&sessions, "s/1", "")
        .commit()?;
    gone.keyspace("a")?.put("lost", "with its tenant")?;
    engine.flush()?;
    engine.delete_tenant("gone")?;
    let zurich = engine.create_tenant("zürich", TenantOptions::default())?;
    zurich.keyspace("a")?.put("only", "one")?;
    activity.delete("u42/2026-11-21")?;
    acme.batch()
        .put(&activity, "u42/2026-11-22", "saved report.txt")
        .put(&sessions, "s/2", "token")
        .commit()?;
    // After the checkpoint: an escrow must know every tenant that its checkpoint holds.
    let secret = EscrowSecret::generate()?;
    engine.checkpoint(dir.join("copy"))?;
    std::fs::write(dir.join("escrow"), engine.escrow(&secret.recipient())?).unwrap();
    secret.save(dir.join("escrow.secret"))?;
    copy_tree(&dir.join("db"), &dir.join("killed"));
    engine.close()?;
    // Random bytes that hold nothing, and files that only a running process needs.
    let left = ["keystore/reserve", "LOCK"];
    let left = left.map(|name| [dir.join("db").join(name), dir.join("killed").join(name)]);
    for path in left.into_iter().flatten().chain([dir.join("key.lock")]) {
        std::fs::remove_file(path).unwrap();
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open_copy(of: &Path, database: &str) -> Result<Content, Error> {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(of, dir.path());
    // Git keeps no modes of files: a key file that others may read is refused.
    let key = dir.path().join("key");
    let mut mode = std::fs::metadata(&key).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
    std::fs::set_permissions(&key, mode).unwrap();
    let engine = Engine::builder(dir.path().join(database))
        .keys(KeyFile::open(key)?)
        .create_if_missing(false)
        .open()?;
    let content = read_all(&engine)?;
    assert_eq!(engine.recovery().clean, database == "db");
    engine.close()?;
    Ok(content)
}

#[test]
fn freshly_written_golden_database_reads_as_written() {
    let dir = tempfile::tempdir().unwrap();
    write_golden(dir.path()).unwrap();
    assert_eq!(open_copy(dir.path(), "db").unwrap(), golden_content());
}

#[test]
fn golden_database_of_format_1_reads_as_written() {
    assert_eq!(open_copy(&fixture(), "db").unwrap(), golden_content());
}

#[test]
fn golden_database_of_a_killed_process_recovers_as_written() {
    assert_eq!(open_copy(&fixture(), "killed").unwrap(), golden_content());
}

#[test]
fn golden_checkpoint_of_format_1_restores_with_its_escrow() {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&fixture(), dir.path());
    let secret = EscrowSecret::load(dir.path().join("escrow.secret")).unwrap();
    let escrow = std::fs::read(dir.path().join("escrow")).unwrap();
    let keys = Arc::new(KeyFile::create(dir.path().join("key of the copy")).unwrap());
    let (from, to) = (dir.path().join("copy"), dir.path().join("restored"));
    restore(from, &escrow, &secret, &to, keys.clone(), &Io::os()).unwrap();
    let engine = Engine::builder(to).shared_keys(keys).open().unwrap();
    assert_eq!(read_all(&engine).unwrap(), golden_content());
}

/// Only while the format is not released:
/// `cargo test -p strongroom-tests --test format rewrite_the_golden_database -- --ignored`, and then the
/// same with `rewrite_the_examples`.
#[test]
#[ignore = "rewrites the fixture"]
fn rewrite_the_golden_database() {
    if fixture().exists() {
        std::fs::remove_dir_all(fixture()).unwrap();
    }
    std::fs::create_dir_all(fixture()).unwrap();
    write_golden(&fixture()).unwrap();
}

/// One block: file, offset, bytes, line in the document.
struct Example {
    file: String,
    offset: usize,
    bytes: Vec<u8>,
    line: usize,
}

fn examples(document: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for (n, line) in document.lines().enumerate() {
        if let Some(head) = line.strip_prefix("```hex ") {
            let mut words = head.split_whitespace();
            let file = words.next().unwrap_or_default().to_string();
            let offset = words.next().and_then(|w| w.parse().ok());
            let offset = offset.unwrap_or_else(|| panic!("docs/format.md line {}: no offset", n + 1));
            found.push(Example {
                file,
                offset,
                bytes: Vec::new(),
                line: n + 1,
            });
            inside = true;
        } else if line.starts_with("```") {
            inside = false;
        } else if inside {
            let digits: String = line
                .split("  ")
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let bytes = hex::decode(&digits).unwrap_or_else(|e| panic!("docs/format.md line {}: {e}", n + 1));
            found.last_mut().unwrap().bytes.extend(bytes);
        }
    }
    found
}

#[test]
fn examples_of_the_document_are_bytes_of_the_golden_database() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let examples = examples(&document);
    assert!(!examples.is_empty(), "docs/format.md has no examples");
    for example in examples {
        let bytes = std::fs::read(fixture().join("db").join(&example.file))
            .unwrap_or_else(|e| panic!("docs/format.md line {}: {}: {e}", example.line, example.file));
        let there = bytes.get(example.offset..example.offset + example.bytes.len());
        assert_eq!(
            there.map(hex::encode),
            Some(hex::encode(&example.bytes)),
            "docs/format.md line {}: {} at {}",
            example.line,
            example.file,
            example.offset
        );
    }
}

/// Puts the bytes of the golden database into the document's examples, line by line as long as before.
/// Comments stay as they are: read them afterwards.
#[test]
#[ignore = "rewrites docs/format.md"]
fn rewrite_the_examples() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let mut out = String::new();
    let mut source: Option<(Vec<u8>, usize)> = None;
    for line in document.lines() {
        let mut new = line.to_string();
        if let Some(head) = line.strip_prefix("```hex ") {
            let (file, offset) = head.split_once(' ').unwrap();
            let bytes = std::fs::read(fixture().join("db").join(file)).unwrap();
            source = Some((bytes, offset.trim().parse().unwrap()));
        } else if line.starts_with("```") {
            source = None;
        } else if let Some((bytes, at)) = &mut source {
            let (digits, comment) = line.split_once("  ").unwrap_or((line, ""));
            let there = &bytes[*at..*at + digits.split_whitespace().count()];
            *at += there.len();
            let hex: Vec<String> = there.iter().map(|byte| format!("{byte:02x}")).collect();
            let rest = &line[line.len() - comment.len()..];
            let pad = line.len() - digits.len() - rest.len();
            new = format!("{}{}{rest}", hex.join(" "), " ".repeat(pad));
        }
        out.push_str(&new);
        out.push('\n');
    }
    std::fs::write(path, out).unwrap();
}
