//! The calls of [`Vfs`] and [`File`](crate::io::File) on a simulated file system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cruelty::{Misdeed, flip};
use super::fault::{OpKind, Verdict};
use super::image::{FileNode, check_range};
use super::names::{Change, DirNode, Ino};
use super::{Node, SimFs, State, normal, parts};
use crate::io::{DirEntry, DirLock, File, Vfs};

struct SimFile {
    fs: SimFs,
    ino: Ino,
    path: PathBuf,
    writable: bool,
}

struct SimLock {
    fs: SimFs,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.state().locks.remove(&self.path);
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        if let Some(count) = state.open.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                state.open.remove(&self.ino);
            }
        }
    }
}

impl SimFs {
    fn handle(&self, state: &mut State, ino: Ino, path: &Path, writable: bool) -> Arc<dyn File> {
        *state.open.entry(ino).or_default() += 1;
        Arc::new(SimFile {
            fs: self.clone(),
            ino,
            path: path.to_path_buf(),
            writable,
        })
    }

    fn open_file(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn File>> {
        let mut state = self.opening(path)?;
        match state.lookup(path)? {
            (ino, Node::File(_)) => Ok(self.handle(&mut state, ino, path, writable)),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

impl State {
    /// Applies a change of names in one directory.
    fn rename_in(&mut self, dir: Ino, other: Option<Ino>, change: Change) {
        let time = self.plan.ops;
        if let Some(dir) = self.dir_mut(dir) {
            dir.change(time, other, change);
        }
    }
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl File for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.fs.reading(&self.path)?;
        if state.is_spoilt(self.ino, offset, buf.len() as u64) {
            state.strike("bad sector", None, &self.path);
            return Err(super::fault::error(io::ErrorKind::Other, false));
        }
        match state.nodes.get(&self.ino) {
            Some(Node::File(file)) => file.current().read(buf, offset)?,
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
        let now = state.plan.reads;
        if let Some(Misdeed::FlipInRead { bit }) = state.due(now, true) {
            flip(buf, bit);
            state.strike("flip in a read", None, &self.path);
        }
        Ok(())
    }

    /// What is copied to the page cache is written, here too.
    fn map(&self, offset: u64, len: u64) -> bool {
        let exist = |file: u64| offset.checked_add(len).is_some_and(|end| end <= file);
        self.check_writable().is_ok() && self.len().is_ok_and(exist)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, bytes.len() as u64)?;
        let (mut state, verdict) = self.fs.change(OpKind::Write, &self.path);
        let time = state.plan.ops;
        if let Verdict::Fail { kind, half_write } = verdict {
            if half_write {
                state
                    .file_mut(self.ino)?
                    .write(time, &bytes[..bytes.len() / 2], offset);
            }
            return Err(super::fault::error(kind, state.plan.crashed));
        }
        if let Some(misdeed) = state.due(time, false) {
            return state.miswrite(misdeed, (self.ino, &self.path), bytes, offset);
        }
        let room = state.room();
        let file = state.file_mut(self.ino)?;
        let growth = (offset + bytes.len() as u64).saturating_sub(file.current().len());
        if growth > room {
            let fits = (bytes.len() as u64).saturating_sub(growth - room);
            file.write(time, &bytes[..fits as usize], offset);
            state.strike("ENOSPC", Some(OpKind::Write), &self.path);
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write(time, bytes, offset);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.wait_for_hook(&self.path);
        let (mut state, verdict) = self.fs.change(OpKind::Sync, &self.path);
        match verdict {
            Verdict::Execute if self.fs.is_a_lie(OpKind::Sync, &self.path, state.plan.ops) => {}
            Verdict::Execute if state.full_at_sync(self.ino) => {
                state.strike("ENOSPC", Some(OpKind::Sync), &self.path);
                state.file_mut(self.ino)?.fail_sync();
                return Err(io::ErrorKind::StorageFull.into());
            }
            Verdict::Execute => {
                state.file_mut(self.ino)?.sync();
                state.sync_names_too();
            }
            Verdict::Fail { .. } if state.plan.crashed => {}
            Verdict::Fail { .. } => state.file_mut(self.ino)?.fail_sync(),
        }
        state.pass(verdict)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        check_range(0, len)?;
        let current = self.fs.state().file_mut(self.ino)?.current().len();
        let kind = if len < current {
            OpKind::Cut
        } else {
            OpKind::SetLen
        };
        let mut state = self.fs.changing(kind, &self.path)?;
        let (time, room) = (state.plan.ops, state.room());
        let file = state.file_mut(self.ino)?;
        if len.saturating_sub(file.current().len()) > room {
            state.strike("ENOSPC", Some(OpKind::SetLen), &self.path);
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.set_len(time, len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        match self.fs.reading(&self.path)?.nodes.get(&self.ino) {
            Some(Node::File(file)) => Ok(file.current().len()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Vfs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing(OpKind::CreateDir, path)?;
        let mut at = PathBuf::new();
        for name in parts(path) {
            let (dir, _) = state.lookup(&at)?;
            at.push(&name);
            match state.lookup(&at) {
                Ok((_, Node::Dir(_))) => {}
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(_) => {
                    let ino = state.add(Node::Dir(Arc::new(DirNode::default())));
                    state.rename_in(dir, None, Change::Set { name, ino });
                }
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.changing(OpKind::Create, path)?;
        state.check_handles(path)?;
        let (dir, name) = state.parent(path)?;
        if state.lookup(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = state.add(Node::File(Arc::new(FileNode::default())));
        state.rename_in(dir, None, Change::Set { name, ino });
        Ok(self.handle(&mut state, ino, path, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_file(path, false)
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_file(path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.changing(OpKind::Rename, from)?;
        let (ino, node) = state.lookup(from)?;
        let (from_dir, from_name) = state.parent(from)?;
        let (to_dir, to_name) = state.parent(to)?;
        match (&node, state.lookup(to)) {
            (_, Err(_)) | (Node::File(_), Ok((_, Node::File(_)))) => {}
            (Node::Dir(_), Ok((_, Node::Dir(target)))) if target.current().is_empty() => {}
            (_, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        if from_dir == to_dir {
            state.rename_in(
                from_dir,
                None,
                Change::Rename {
                    from: from_name,
                    to: to_name,
                    ino,
                },
            );
        } else {
            state.rename_in(from_dir, Some(to_dir), Change::Unset { name: from_name, ino });
            state.rename_in(to_dir, Some(from_dir), Change::Set { name: to_name, ino });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing(OpKind::RemoveFile, path)?;
        let (dir, name) = state.parent(path)?;
        match state.lookup(path)? {
            (ino, Node::File(_)) => state.rename_in(dir, None, Change::Unset { name, ino }),
            _ => return Err(io::ErrorKind::IsADirectory.into()),
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing(OpKind::RemoveDir, path)?;
        let (dir, name) = state.parent(path)?;
        match state.lookup(path)? {
            (ino, Node::Dir(node)) if node.current().is_empty() => {
                state.rename_in(dir, None, Change::Unset { name, ino });
                Ok(())
            }
            (_, Node::Dir(_)) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.changing(OpKind::Link, to)?;
        if state.manners.no_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (dir, name) = state.parent(to)?;
        if state.lookup(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match state.lookup(from)? {
            (ino, Node::File(_)) => state.rename_in(dir, None, Change::Set { name, ino }),
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.opening(path)?;
        let (_, Node::Dir(dir)) = state.lookup(path)? else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let entries = dir.current().iter().filter_map(|(name, ino)| {
            let (len, is_dir) = match state.nodes.get(ino)? {
                Node::File(file) => (file.current().len(), false),
                Node::Dir(_) => (0, true),
            };
            Some(DirEntry {
                name: name.clone(),
                len,
                is_dir,
            })
        });
        Ok(entries.collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.changing(OpKind::SyncDir, path)?;
        state.check_handles(path)?;
        let (ino, Node::Dir(node)) = state.lookup(path)? else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        if self.is_a_lie(OpKind::SyncDir, path, state.plan.ops) {
            return Ok(());
        }
        let moves: Vec<(u64, Ino)> = node
            .unsynced()
            .iter()
            .filter_map(|u| u.other.map(|other| (u.time, other)))
            .collect();
        // A move is certain once the second of its directories is synced.
        let mut certain = Vec::new();
        for (time, other) in moves {
            match state.half_synced.get(&time) {
                Some(first) if *first == other => certain.push((time, other)),
                _ => drop(state.half_synced.insert(time, ino)),
            }
        }
        for (time, other) in &certain {
            state.half_synced.remove(time);
            if let Some(dir) = state.dir_mut(*other) {
                dir.settle_move(*time);
            }
        }
        if let Some(dir) = state.dir_mut(ino) {
            dir.sync(|u| certain.iter().any(|(time, _)| *time == u.time));
        }
        state.sweep();
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.reading(path)?.lookup(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut state = self.changing(OpKind::Lock, path)?;
        state.check_handles(path)?;
        let (dir, name) = state.parent(path)?;
        match state.lookup(path) {
            Ok((_, Node::File(_))) => {}
            Ok(_) => return Err(io::ErrorKind::IsADirectory.into()),
            Err(_) => {
                let ino = state.add(Node::File(Arc::new(FileNode::default())));
                state.rename_in(dir, None, Change::Set { name, ino });
            }
        }
        let path = normal(path);
        if !state.locks.insert(path.clone()) {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "held by another holder",
            ));
        }
        Ok(Box::new(SimLock {
            fs: self.clone(),
            path,
        }))
    }
}
