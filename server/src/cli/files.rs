//! Writing small files whole: a reader sees the old content or the new, never a part.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::exit::{self, Failure, Outcome};

/// Writes a file only its owner may read (mode 0600).
pub fn secret(path: &Path, content: &[u8]) -> Outcome {
    write(path, content, 0o600)
}

/// Writes a file anyone may read (mode 0644).
pub fn public(path: &Path, content: &[u8]) -> Outcome {
    write(path, content, 0o644)
}

/// Temporary name, sync, rename, sync of the directory.
fn write(path: &Path, content: &[u8], mode: u32) -> Outcome {
    let name = path
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} names no file", path.display())))?;
    let mut temporary = name.to_os_string();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result.map_err(exit::at(path))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(exit::at(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_for_its_owner_only_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        public(&path, b"old").unwrap();
        secret(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
