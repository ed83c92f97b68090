//! The corpus in the repository.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Parser;

/// Files that begin so are made by the encoders and replaced with them; all others are kept.
const SAMPLE: &str = "sample-";

/// The directory of all corpora.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The directory of one target's.
pub fn directory(parser: &Parser) -> PathBuf {
    root().join(parser.name)
}

/// All inputs kept for a target, with the names of their files, in order.
pub fn read(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory(parser)) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a corpus that can be read").path())
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a corpus that can be read"))
        })
        .collect();
    files.sort();
    files
}

/// The samples that the encoders make now, with the names of their files.
pub fn samples(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let named = |(index, bytes)| (format!("{SAMPLE}{index}"), bytes);
    (parser.samples)().into_iter().enumerate().map(named).collect()
}

/// Replaces the samples in the repository by those the encoders make now. Returns how many there are.
pub fn write(parser: &Parser) -> std::io::Result<usize> {
    let dir = directory(parser);
    fs::create_dir_all(&dir)?;
    for (name, _) in read(parser).iter().filter(|(name, _)| name.starts_with(SAMPLE)) {
        fs::remove_file(dir.join(name))?;
    }
    let samples = samples(parser);
    for (name, bytes) in &samples {
        fs::write(dir.join(name), bytes)?;
    }
    Ok(samples.len())
}

/// Samples in the repository that are not what the encoders make now.
pub fn stale(parser: &Parser) -> Vec<String> {
    let now = samples(parser);
    let mut kept = read(parser);
    kept.retain(|(name, _)| name.starts_with(SAMPLE));
    let differ = |(name, bytes): &&(String, Vec<u8>)| !kept.iter().any(|(n, b)| n == name && b == bytes);
    let mut stale: Vec<String> = now.iter().filter(differ).map(|(name, _)| name.clone()).collect();
    stale.extend(
        kept.into_iter()
            .map(|(name, _)| name)
            .filter(|name| !now.iter().any(|(n, _)| n == name)),
    );
    stale.sort();
    stale.dedup();
    stale
}
