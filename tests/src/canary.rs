//! Words that tests put into names, keys and values, and that must never be found outside memory.
//!
//! Sealed bytes are random, so that a hit of eight bytes by chance does not happen: a hit is a leak.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Part of every tenant's name.
pub const TENANT: &str = "cnry+tenant";
/// Part of every keyspace's name.
pub const KEYSPACE: &str = "cnry+space";
/// Start of every key. Also found in filters, bounds and separators, if they are not sealed.
pub const KEY: &str = "cnry+key";
/// Part of every value.
pub const VALUE: &str = "cnry+value";

/// A word that was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Leak {
    /// In which file.
    pub path: PathBuf,
    /// At which byte.
    pub offset: usize,
    /// Which word.
    pub word: &'static str,
}

impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {} of {}",
            self.word,
            self.offset,
            self.path.display()
        )
    }
}

/// Every word in these files, in order of file; also in their names.
pub fn find(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for (path, bytes) in files {
        for word in [TENANT, KEYSPACE, KEY, VALUE] {
            let name = path.as_os_str().as_encoded_bytes();
            let hits = offsets(bytes, word).chain(offsets(name, word));
            leaks.extend(hits.map(|offset| Leak {
                path: path.clone(),
                offset,
                word,
            }));
        }
    }
    leaks
}

/// Whether a text (an error, a log line) has any of the words.
pub fn is_in(text: &str) -> bool {
    [TENANT, KEYSPACE, KEY, VALUE]
        .iter()
        .any(|word| text.contains(word))
}

fn offsets<'a>(bytes: &'a [u8], word: &'a str) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(word.len())
        .enumerate()
        .filter(|(_, w)| *w == word.as_bytes())
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_in_content_or_name_is_found() {
        let files = BTreeMap::from([
            (PathBuf::from("/a"), b"..cnry+key-7..cnry+value".to_vec()),
            (PathBuf::from("/cnry+tenant"), b"".to_vec()),
            (PathBuf::from("/z"), b"cnry+ke".to_vec()),
        ]);
        let words: Vec<_> = find(&files).into_iter().map(|l| (l.offset, l.word)).collect();
        assert_eq!(words, [(2, KEY), (14, VALUE), (1, TENANT)]);
    }
}
