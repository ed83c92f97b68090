//! Looks for plaintext where none may be.
//!
//! Canaries are byte strings that only the tenants' data holds: values, parts of values, users, keys
//! (as bytes and as hexadecimal, the way a careless log would print them), tenant and keyspace names,
//! tokens. One pass over every file finds any of them; names of files count as content. That the search
//! itself works is shown first, on a file with planted canaries.
//!
//! A canary has at least [`CANARY_BYTES_MIN`] bytes: in 1 GiB of random ciphertext one of 100,000 such
//! strings turns up by chance once in 100,000 runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;

use crate::cli::exit::{self, Failure, Outcome};

/// Shorter strings occur by chance.
pub const CANARY_BYTES_MIN: usize = 8;

/// Read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Hits kept for the report; all are counted.
const HITS_MAX: usize = 100;

/// Collects canaries.
#[derive(Default)]
pub struct Builder {
    canaries: BTreeMap<Vec<u8>, &'static str>,
}

impl Builder {
    /// Adds a canary of a kind ("value", "user", ...). False: too short to mean anything.
    pub fn add(&mut self, kind: &'static str, bytes: &[u8]) -> bool {
        let useful = bytes.len() >= CANARY_BYTES_MIN;
        if useful {
            self.canaries.entry(bytes.to_vec()).or_insert(kind);
        }
        useful
    }

    /// Makes the search.
    pub fn build(self) -> Outcome<Canaries> {
        let (patterns, kinds): (Vec<_>, Vec<_>) = self.canaries.into_iter().unzip();
        let overlap = patterns.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
        let automaton = AhoCorasick::new(&patterns)
            .map_err(|error| Failure::failed(format!("cannot search for so many canaries: {error}")))?;
        Ok(Canaries {
            automaton,
            patterns,
            kinds,
            overlap,
        })
    }
}

/// The search.
pub struct Canaries {
    automaton: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    kinds: Vec<&'static str>,
    overlap: usize,
}

/// A canary found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// In which file.
    pub file: PathBuf,
    /// At which byte; `None`: in its name.
    pub offset: Option<u64>,
    /// What it is.
    pub kind: &'static str,
}

/// What a search saw.
#[derive(Clone, Default, Debug)]
pub struct Searched {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Canaries found, all of them.
    pub found: u64,
    /// The first of them.
    pub hits: Vec<Hit>,
}

impl Searched {
    fn hit(&mut self, file: &Path, offset: Option<u64>, kind: &'static str) {
        self.found += 1;
        if self.hits.len() < HITS_MAX {
            self.hits.push(Hit {
                file: file.to_path_buf(),
                offset,
                kind,
            });
        }
    }
}

impl Canaries {
    /// How many strings are looked for.
    pub fn len(&self) -> u64 {
        self.patterns.len() as u64
    }

    /// Every kind with its number of canaries.
    pub fn kinds(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for kind in &self.kinds {
            *kinds.entry(*kind).or_insert(0) += 1;
        }
        kinds
    }

    /// Searches every file under `dir`. Links are not followed.
    pub fn search(&self, dir: &Path) -> Outcome<Searched> {
        let mut searched = Searched::default();
        let mut open = vec![dir.to_path_buf()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).map_err(exit::at(&dir))? {
                let entry = entry.map_err(exit::at(&dir))?;
                let path = entry.path();
                if let Some(hit) = self.automaton.find(entry.file_name().as_bytes()) {
                    searched.hit(&path, None, self.kind(hit.pattern().as_usize()));
                }
                let kind = entry.file_type().map_err(exit::at(&path))?;
                if kind.is_dir() {
                    open.push(path);
                } else if kind.is_file() {
                    self.file(&path, &mut searched)?;
                }
            }
        }
        Ok(searched)
    }

    /// Shows that the search works: plants one canary of each kind, one of them across the edge of two
    /// reads, in a file under `dir`; finds them; removes the file. Fails if one is missed.
    pub fn prove(&self, dir: &Path) -> Outcome<u64> {
        let mut planted = Vec::new();
        for kind in self.kinds().keys() {
            let of_kind = self
                .kinds
                .iter()
                .zip(&self.patterns)
                .filter(|(other, _)| *other == kind);
            planted.extend(of_kind.map(|(_, pattern)| pattern).take(1));
        }
        let mut content = vec![0u8; CHUNK_BYTES - CANARY_BYTES_MIN / 2];
        for pattern in &planted {
            content.extend_from_slice(pattern);
            content.extend_from_slice(&[0; 32]);
        }
        std::fs::create_dir_all(dir).map_err(exit::at(dir))?;
        let path = dir.join("planted");
        std::fs::write(&path, &content).map_err(exit::at(&path))?;
        let searched = self.search(dir)?;
        std::fs::remove_file(&path).map_err(exit::at(&path))?;
        let want = planted.len() as u64;
        if want == 0 || searched.found < want {
            return Err(Failure::failed(format!(
                "the search for plaintext does not work: {} of {want} planted canaries found",
                searched.found
            )));
        }
        Ok(want)
    }

    fn kind(&self, pattern: usize) -> &'static str {
        self.kinds.get(pattern).copied().unwrap_or("unknown")
    }

    fn file(&self, path: &Path, searched: &mut Searched) -> Outcome {
        let mut file = File::open(path).map_err(exit::at(path))?;
        let mut buffer = Vec::with_capacity(CHUNK_BYTES + self.overlap);
        let mut start = 0u64; // file offset of buffer[0]
        let mut seen = 0u64; // end of the last hit, so that none in the overlap counts twice
        searched.files += 1;
        loop {
            let kept = buffer.len();
            let n = (&mut file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut buffer)
                .map_err(exit::at(path))?;
            searched.bytes += n as u64;
            if n == 0 {
                return Ok(());
            }
            for hit in self.automaton.find_iter(&buffer) {
                let (at, end) = (start + hit.start() as u64, start + hit.end() as u64);
                if at >= seen {
                    searched.hit(path, Some(at), self.kind(hit.pattern().as_usize()));
                    seen = end;
                }
            }
            let drop = (kept + n).saturating_sub(self.overlap);
            buffer.drain(..drop);
            start += drop as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canaries() -> Canaries {
        let mut builder = Builder::default();
        assert!(builder.add("user", b"u1592b61d"));
        assert!(builder.add("value", b"{\"action\":\"save\"}"));
        assert!(builder.add("value", b"{\"action\":\"create\"}"));
        assert!(!builder.add("user", b"short"));
        builder.build().unwrap()
    }

    #[test]
    fn a_canary_is_found_at_every_offset_around_a_read() {
        let canaries = canaries();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for shift in 0..=canaries.overlap + 2 {
            let mut content = vec![b'.'; CHUNK_BYTES - shift];
            content.extend_from_slice(b"{\"action\":\"create\"}");
            content.resize(2 * CHUNK_BYTES + 5, b'.');
            std::fs::write(&path, &content).unwrap();
            let searched = canaries.search(dir.path()).unwrap();
            assert_eq!(searched.found, 1, "shift {shift}");
            assert_eq!(searched.hits[0].offset, Some((CHUNK_BYTES - shift) as u64));
            assert_eq!(searched.bytes, content.len() as u64);
        }
    }

    #[test]
    fn names_of_files_and_files_in_directories_count() {
        let canaries = canaries();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/u1592b61d")).unwrap();
        std::fs::write(dir.path().join("a/u1592b61d/file"), b"xx{\"action\":\"save\"}").unwrap();
        let searched = canaries.search(dir.path()).unwrap();
        assert_eq!((searched.found, searched.files), (2, 1));
        let kinds: Vec<_> = searched.hits.iter().map(|hit| (hit.kind, hit.offset)).collect();
        assert!(
            kinds.contains(&("user", None)) && kinds.contains(&("value", Some(2))),
            "{kinds:?}"
        );
    }

    #[test]
    fn the_proof_leaves_nothing_behind() {
        let canaries = canaries();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(canaries.prove(dir.path()).unwrap(), 2);
        assert_eq!(canaries.search(dir.path()).unwrap().found, 0);
        assert_eq!((canaries.len(), canaries.kinds()["value"]), (3, 2));
    }
}
