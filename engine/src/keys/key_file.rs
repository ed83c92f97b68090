//! Key-encryption keys in a text file, for development: whoever can read the file reads everything, and
//! nothing can prove that a removed key has left the disk.
//!
//! ```text
//! strongroom key file 1: for development only, whoever reads this file reads the databases
//! id 00112233445566778899aabbccddeeff
//! next 3
//! key 2 <64 hexadecimal digits>
//! check <crc32 of all lines before, 8 hexadecimal digits>
//! ```
//!
//! Valid if and only if the lines are these, in this order, with any number of `key` lines whose versions
//! ascend and lie below `next`, and the checksum matches. `next` only grows: a version is never used twice.
//!
//! Several databases and processes may share a file. It is read anew for every call, so what another one
//! added is seen and what another one destroyed is gone; it is changed under the lock file `<path>.lock`,
//! by replacing it whole (write `<path>.tmp`, sync, rename, sync the directory).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::provider::{Destruction, KekVersion, KeyProvider};
use super::wrap::{self, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{DirLock, Io, durable};
use crate::seal::Dek;

const FIRST_LINE: &str =
    "strongroom key file 1: for development only, whoever reads this file reads the databases";
/// Far more than any number of databases needs: a limit for what is read into memory.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long to wait for another process that is changing the file: 5 s in all.
const LOCK_ATTEMPTS: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// File provider for development.
///
/// A database belongs to the key file it was made with: it does not open with another one. Keep the file
/// apart from the database and its backups; lose it, and the database is lost.
pub struct KeyFile {
    io: Io,
    path: PathBuf,
    id: [u8; 16],
}

impl KeyFile {
    /// Makes a new key file (mode 0600); `AlreadyExists` if there is one.
    pub fn create(path: impl AsRef<Path>) -> Result<KeyFile> {
        KeyFile::create_in(Io::os(), path.as_ref())
    }

    /// Opens a key file; `KeyRefused` with the reason if it is missing or malformed.
    pub fn open(path: impl AsRef<Path>) -> Result<KeyFile> {
        KeyFile::open_in(Io::os(), path.as_ref())
    }

    /// As [`create`](KeyFile::create), on the machine `io`.
    pub fn create_in(io: Io, path: &Path) -> Result<KeyFile> {
        let _lock = lock(&io, path)?;
        if io
            .vfs
            .exists(path)
            .map_err(|e| Error::io("looking for the key file", path, e))?
        {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a key file already").at(path));
        }
        let mut id = [0u8; 16];
        crate::seal::fill(&*io.rng, &mut id)?;
        store(
            &io,
            path,
            &Keys {
                id,
                next: 1,
                keys: Vec::new(),
            },
        )?;
        Ok(KeyFile {
            io,
            path: path.to_path_buf(),
            id,
        })
    }

    /// As [`open`](KeyFile::open), on the machine `io`.
    pub fn open_in(io: Io, path: &Path) -> Result<KeyFile> {
        let id = load(&io, path)?.id;
        Ok(KeyFile {
            io,
            path: path.to_path_buf(),
            id,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether others than the owner may read or write the file: it should have mode 0600. Always false
    /// where there are no such modes.
    pub fn is_exposed(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(&self.path).is_ok_and(|m| m.permissions().mode() & 0o077 != 0)
        }
        #[cfg(not(unix))]
        {
            false
        }
    }

    /// The file as it is now; refused if another key file took its place.
    fn load(&self) -> Result<Keys> {
        let keys = load(&self.io, &self.path)?;
        if keys.id != self.id {
            return Err(refused("the key file was replaced by another one").at(&self.path));
        }
        Ok(keys)
    }

    fn change<T>(&self, edit: impl FnOnce(&mut Keys) -> Result<(T, bool)>) -> Result<T> {
        let _lock = lock(&self.io, &self.path)?;
        let mut keys = self.load()?;
        let (result, changed) = edit(&mut keys)?;
        if changed {
            store(&self.io, &self.path, &keys)?;
        }
        Ok(result)
    }
}

impl KeyProvider for KeyFile {
    fn name(&self) -> &str {
        "file"
    }

    fn create_version(&self) -> Result<KekVersion> {
        self.change(|keys| {
            let kek = Dek::generate(&*self.io.rng)?;
            let version = KekVersion(keys.next);
            keys.next = keys
                .next
                .checked_add(1)
                .ok_or_else(|| refused("key versions are used up"))?;
            keys.keys.push((version, kek));
            Ok((version, true))
        })
    }

    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>> {
        let keys = self.load()?;
        let kek = keys.find(version).ok_or_else(|| gone(version).at(&self.path))?;
        wrap::wrap(&*self.io.rng, &self.id, version, kek, root, context)
    }

    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let keys = self.load()?;
        match wrap::wrapped_by(wrapped) {
            Some((id, _)) if id != self.id => {
                return Err(refused("the keystore belongs to another key file").at(&self.path));
            }
            Some((_, v)) if v == version => {}
            _ => return Err(refused("the keystore's root was not wrapped by a key file").at(&self.path)),
        }
        let kek = keys.find(version).ok_or_else(|| gone(version).at(&self.path))?;
        wrap::unwrap(kek, wrapped, context).map_err(|e| e.at(&self.path))
    }

    fn destroy_version(&self, version: KekVersion) -> Result<Destruction> {
        self.change(|keys| {
            let before = keys.keys.len();
            keys.keys.retain(|(v, _)| *v != version);
            Ok((Destruction::Destroyed, keys.keys.len() != before))
        })
    }
}

/// The file's content. The list holds no key itself: one that grows or moves its entries would leave keys behind.
struct Keys {
    id: [u8; 16],
    next: u64,
    keys: Vec<(KekVersion, Dek)>,
}

impl Keys {
    fn find(&self, version: KekVersion) -> Option<&[u8; 32]> {
        self.keys
            .iter()
            .find(|(v, _)| *v == version)
            .map(|(_, kek)| kek.expose())
    }

    fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it: a buffer that moved would leave keys behind.
        let mut text = Zeroizing::new(String::with_capacity(
            FIRST_LINE.len() + 100 + 96 * self.keys.len(),
        ));
        text.push_str(FIRST_LINE);
        text.push_str("\nid ");
        push_hex(&mut text, &self.id);
        // Writing to a String does not fail.
        let _ = writeln!(text, "\nnext {}", self.next);
        for (version, kek) in &self.keys {
            let _ = write!(text, "key {} ", version.0);
            push_hex(&mut text, kek.expose());
            text.push('\n');
        }
        let crc = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "check {crc:08x}");
        text
    }

    fn parse(text: &str) -> std::result::Result<Keys, &'static str> {
        let rest = text
            .strip_prefix("strongroom key file ")
            .ok_or("it does not begin like a key file")?;
        if !rest.starts_with("1:") {
            return Err("it is of a format this version does not know");
        }
        let (body, check) = text.rsplit_once("check ").ok_or("its check line is missing")?;
        let crc = check
            .strip_suffix('\n')
            .and_then(parse_hex::<4>)
            .ok_or("its check line")?;
        if crc32fast::hash(body.as_bytes()) != u32::from_be_bytes(crc) {
            return Err("its check line does not match: it was altered or damaged");
        }
        let body = body.strip_suffix('\n').ok_or("its lines")?;
        let mut lines = body.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err("its first line");
        }
        let id = lines
            .next()
            .and_then(|l| l.strip_prefix("id "))
            .and_then(parse_hex)
            .ok_or("its id line")?;
        let next = lines
            .next()
            .and_then(|l| l.strip_prefix("next "))
            .and_then(parse_number);
        let next = next.ok_or("its next line")?;
        let mut keys: Vec<(KekVersion, Dek)> = Vec::new();
        let mut kek = Zeroizing::new([0u8; 32]);
        for line in lines {
            let (version, hex) = line
                .strip_prefix("key ")
                .and_then(|l| l.split_once(' '))
                .ok_or("a key line")?;
            let version = parse_number(version).map(KekVersion).ok_or("a key line")?;
            let last = keys.last().map_or(KekVersion(0), |(v, _)| *v);
            if version <= last || version.0 >= next {
                return Err("the order of its key lines");
            }
            read_hex(hex, kek.as_mut_slice()).ok_or("a key line")?;
            keys.push((version, Dek::from_bytes(&kek)));
        }
        Ok(Keys { id, next, keys })
    }
}

/// For fuzzing: whether this is a key file, which then must read back as the same bytes.
#[cfg(any(test, feature = "sim"))]
pub(super) fn parses_and_reads_back(bytes: &[u8]) -> bool {
    let Some(keys) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Keys::parse(text).ok())
    else {
        return false;
    };
    assert!(
        keys.to_text().as_bytes() == bytes,
        "a key file reads back as other bytes"
    );
    true
}

fn load(io: &Io, path: &Path) -> Result<Keys> {
    let read = |e: std::io::Error| refused("the key file cannot be read").with_source(e).at(path);
    let file = io.vfs.open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => refused("there is no key file").at(path),
        _ => read(e),
    })?;
    let len = file.len().map_err(read)?;
    if len > FILE_BYTES_MAX {
        return Err(refused("the key file is malformed: it is too long").at(path));
    }
    let mut bytes = Zeroizing::new(vec![0u8; len as usize]);
    file.read_exact_at(&mut bytes, 0).map_err(read)?;
    let malformed = |why: &str| refused(format!("the key file is malformed: {why}")).at(path);
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("it is not text"))?;
    Keys::parse(text).map_err(malformed)
}

fn store(io: &Io, path: &Path, keys: &Keys) -> Result<()> {
    durable::write_file_atomic(io, path, keys.to_text().as_bytes())
}

/// The lock under which the file is changed.
fn lock(io: &Io, path: &Path) -> Result<Box<dyn DirLock>> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".lock");
    let name = PathBuf::from(name);
    for _ in 0..LOCK_ATTEMPTS {
        match io.vfs.lock(&name) {
            Ok(lock) => return Ok(lock),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(LOCK_PAUSE),
            Err(e) => return Err(Error::io("locking the key file", &name, e)),
        }
    }
    Err(Error::new(ErrorKind::Locked, "another process keeps the key file locked").at(&name))
}

fn gone(version: KekVersion) -> Error {
    refused(format!(
        "key version {} is not in the key file: destroyed, or another file",
        version.0
    ))
}

fn parse_number(text: &str) -> Option<u64> {
    // As it is written: `parse` would take a sign and zeroes before.
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Appends lower-case hexadecimal digits.
pub(super) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('?'));
        }
    }
}

/// Exactly `2 * N` lower-case hexadecimal digits.
pub(super) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0u8; N];
    read_hex(text, &mut out)?;
    Some(out)
}

/// The same to where the caller wipes it: exactly two digits for each byte of `out`.
fn read_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut digits = text.bytes();
    for byte in out {
        *byte = digit(digits.next()?)? << 4 | digit(digits.next()?)?;
    }
    digits.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn root_wrapped_by_a_key_file_unwraps_after_reopening() {
        let dir = dir();
        let path = dir.path().join("strongroom.key");
        let keys = KeyFile::create(&path).unwrap();
        let version = keys.create_version().unwrap();
        let wrapped = keys.wrap(version, &[9; 32], b"context").unwrap();
        let keys = KeyFile::open(&path).unwrap();
        assert_eq!(*keys.unwrap(version, &wrapped, b"context").unwrap(), [9; 32]);
        assert_eq!(
            keys.unwrap(version, &wrapped, b"other").unwrap_err().kind(),
            ErrorKind::KeyRefused
        );
        for bit in 0..wrapped.len() * 8 {
            let mut bad = wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = keys.unwrap(version, &bad, b"context").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::KeyRefused, "bit {bit}");
        }
        for len in 0..wrapped.len() {
            assert!(keys.unwrap(version, &wrapped[..len], b"context").is_err());
        }
    }

    #[test]
    fn new_file_is_private_names_its_purpose_and_is_never_overwritten() {
        let dir = dir();
        let path = dir.path().join("strongroom.key");
        let keys = KeyFile::create(&path).unwrap();
        assert!(!keys.is_exposed());
        #[expect(clippy::disallowed_methods, reason = "looks at the file from outside")]
        let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        assert!(text.lines().next().unwrap().contains("for development only"));
        assert_eq!(
            KeyFile::create(&path).err().unwrap().kind(),
            ErrorKind::AlreadyExists
        );
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(KeyFile::open(&path).unwrap().is_exposed());
    }

    #[test]
    fn missing_file_is_refused_and_not_made() {
        let dir = dir();
        let path = dir.path().join("strongroom.key");
        let error = KeyFile::open(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::KeyRefused);
        assert!(error.to_string().contains("there is no key file"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn malformed_file_is_refused_with_the_reason() {
        let mut keys = Keys {
            id: [1; 16],
            next: 4,
            keys: Vec::new(),
        };
        keys.keys.push((KekVersion(2), Dek::from_bytes(&[2; 32])));
        keys.keys.push((KekVersion(3), Dek::from_bytes(&[3; 32])));
        let good = keys.to_text();
        assert!(Keys::parse(&good).is_ok_and(|k| k.to_text() == good));
        for at in 0..good.len() {
            assert!(Keys::parse(&good[..at]).is_err(), "cut at {at}");
            let mut bad = good.as_bytes().to_vec();
            bad[at] ^= 1;
            assert!(
                std::str::from_utf8(&bad).is_ok_and(|t| Keys::parse(t).is_err()),
                "byte {at}"
            );
        }
        keys.keys.swap(0, 1);
        assert!(Keys::parse(&keys.to_text()).is_err());
        // Numbers as they are written, and in no other way.
        for (written, instead) in [("\nnext ", "\nnext 0"), ("\nnext ", "\nnext +")] {
            let text = good.replacen(written, instead, 1);
            let (body, _) = text.rsplit_once("check ").unwrap();
            let text = format!("{body}check {:08x}\n", crc32fast::hash(body.as_bytes()));
            assert_eq!(Keys::parse(&text).err(), Some("its next line"), "{instead:?}");
        }
        let text = good.replace("key file 1:", "key file 2:");
        assert_eq!(
            Keys::parse(&text).err(),
            Some("it is of a format this version does not know")
        );
    }

    #[test]
    fn keystore_of_another_key_file_is_refused_by_name() {
        let dir = dir();
        let one = KeyFile::create(dir.path().join("one")).unwrap();
        let two = KeyFile::create(dir.path().join("two")).unwrap();
        let version = one.create_version().unwrap();
        assert_eq!(two.create_version().unwrap(), version);
        let wrapped = one.wrap(version, &[9; 32], b"c").unwrap();
        let error = two.unwrap(version, &wrapped, b"c").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyRefused);
        assert!(error.to_string().contains("another key file"), "{error}");
    }

    #[test]
    fn destroyed_version_is_gone_for_all_who_share_the_file_and_not_used_again() {
        let dir = dir();
        let path = dir.path().join("k");
        let one = KeyFile::create(&path).unwrap();
        let two = KeyFile::open(&path).unwrap();
        let a = one.create_version().unwrap();
        let b = two.create_version().unwrap();
        assert_ne!(a, b);
        let wrapped = two.wrap(a, &[1; 32], b"c").unwrap();
        assert_eq!(one.destroy_version(a).unwrap(), Destruction::Destroyed);
        assert_eq!(one.destroy_version(a).unwrap(), Destruction::Destroyed);
        assert_eq!(
            two.unwrap(a, &wrapped, b"c").unwrap_err().kind(),
            ErrorKind::KeyRefused
        );
        one.destroy_version(b).unwrap();
        assert!(one.create_version().unwrap() > b);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn keys_of_a_file_lie_in_memory_that_is_wiped_and_never_in_a_list_that_moves() {
        let dir = dir();
        let file = KeyFile::create(dir.path().join("k")).unwrap();
        let versions: Vec<KekVersion> = (0..9).map(|_| file.create_version().unwrap()).collect();
        file.destroy_version(versions[3]).unwrap();
        let keys = file.load().unwrap();
        for version in versions.iter().filter(|v| **v != versions[3]) {
            let address = keys.find(*version).unwrap().as_ptr() as usize;
            if let Some(flags) = crate::seal::flags_of_mapping(address) {
                assert!(flags.contains(" dd"), "{flags}");
            }
        }
    }

    #[test]
    fn concurrent_changes_are_all_kept() {
        let dir = dir();
        let path = dir.path().join("k");
        KeyFile::create(&path).unwrap();
        let make = || (0..5).map(|_| KeyFile::open(&path).unwrap().create_version().unwrap());
        let all: Vec<KekVersion> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| make().collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let keys = KeyFile::open(&path).unwrap().load().unwrap();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(keys.keys.iter().map(|(v, _)| *v).collect::<Vec<_>>(), sorted);
        assert_eq!(sorted.len(), 20);
    }

    #[test]
    fn crash_at_any_operation_leaves_the_file_before_or_after_the_change() {
        use crate::io::sim::{CrashMode, SimFs};
        let path = Path::new("/strongroom.key");
        let run = |io: &Io, done: &mut Vec<String>| -> Result<()> {
            let text = || load(io, path).map(|keys| keys.to_text().to_string());
            let keys = KeyFile::create_in(io.clone(), path)?;
            done.push(text()?);
            let version = keys.create_version()?;
            done.push(text()?);
            keys.create_version()?;
            done.push(text()?);
            keys.destroy_version(version)?;
            done.push(text()?);
            Ok(())
        };
        let plain = SimFs::new();
        let mut states = Vec::new();
        run(&plain.io(1), &mut states).unwrap();
        for op in 1..=plain.ops() {
            for seed in 0..8 {
                let fs = SimFs::new();
                fs.crash_at(op, seed % 2 == 0);
                let mut done = Vec::new();
                assert!(run(&fs.io(1), &mut done).is_err());
                assert_eq!(done, states[..done.len()]);
                let after = fs.crashed_image(CrashMode::KeepRandom, seed);
                match load(&after.io(2), path) {
                    Ok(keys) => {
                        let text = keys.to_text().to_string();
                        let next = states.get(done.len());
                        assert!(
                            done.last() == Some(&text) || next == Some(&text),
                            "operation {op}"
                        );
                    }
                    Err(error) => assert!(done.is_empty(), "operation {op}, seed {seed}: {error}"),
                }
                if done.is_empty() {
                    continue;
                }
                let keys = KeyFile::open_in(after.io(2), path).unwrap();
                let made = keys.create_version().unwrap();
                assert!(made.0 >= done.len() as u64 - 1, "operation {op}");
            }
        }
    }

    #[test]
    fn replaced_key_file_is_refused() {
        let dir = dir();
        let path = dir.path().join("k");
        let keys: Arc<dyn KeyProvider> = Arc::new(KeyFile::create(&path).unwrap());
        KeyFile::create(dir.path().join("other")).unwrap();
        Io::os().vfs.rename(&dir.path().join("other"), &path).unwrap();
        assert_eq!(keys.create_version().unwrap_err().kind(), ErrorKind::KeyRefused);
    }
}
