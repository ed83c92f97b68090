//! Cruelty beyond losing what was not synced: manners of a file system that are switched on, and
//! misdeeds, which the call they strike does not report.
//!
//! Manners stay through a crash, misdeeds strike once and do not. Whatever strikes is noted, so that a
//! simulation can count what it injected ([`SimFs::take_strikes`]).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{Op, OpKind};
use super::image::{FileNode, SECTOR_BYTES};
use super::names::Ino;
use super::{Node, SimFs, State};

/// What a process gets that has too many files open (EMFILE), which has no stable kind.
const TOO_MANY_OPEN: i32 = 24;

/// How this file system is, besides how it loses things.
#[derive(Clone, Default, Debug)]
pub(super) struct Manners {
    pub(super) capacity: Option<u64>,
    late_allocation: bool,
    names_with_files: bool,
    pub(super) weak_renames: bool,
    handles_max: Option<u64>,
    pub(super) no_links: bool,
}

/// Something that goes wrong while the call returns Ok.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misdeed {
    /// A write that never happens, synced or not: a phantom. Where it grew the file there are zeros.
    LoseWrite,
    /// A write that lands so many sectors before its place, as far as the file goes; where it belongs is
    /// what was there.
    MisplaceWrite {
        /// How far off.
        sectors: u64,
    },
    /// A write that lands in another file at the same offset.
    WriteElsewhere,
    /// A write of which one bit is another.
    FlipInWrite {
        /// Which, as far as there are bits.
        bit: u64,
    },
    /// A read of which one bit is another; the bytes in the file are fine.
    FlipInRead {
        /// Which, as far as there are bits.
        bit: u64,
    },
}

/// A fault that struck.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strike {
    /// Which fault.
    pub what: &'static str,
    /// Which call, if it was one that changes or syncs.
    pub op: Option<OpKind>,
    /// What the call was about.
    pub path: PathBuf,
}

/// Called before every sync of a file.
pub(super) type SyncHook = Arc<dyn Fn(&Op) + Send + Sync>;

impl SimFs {
    // ---- manners ----

    /// Bytes the disk has room for, or no limit. Past it, writes put down what fits and fail with
    /// `StorageFull`; room returns when files are removed.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().manners.capacity = bytes;
    }

    /// Writes that grow a file find room only when it is synced (delayed allocation): the write returns
    /// Ok on a full disk, the sync fails with `StorageFull` and loses the bytes.
    pub fn set_late_allocation(&self, yes: bool) {
        self.state().manners.late_allocation = yes;
    }

    /// Syncing any file makes all names durable, as a file system does that commits one journal.
    pub fn set_names_with_files(&self, yes: bool) {
        self.state().manners.names_with_files = yes;
    }

    /// A crash may leave both names of a rename that was not synced.
    pub fn set_weak_renames(&self, yes: bool) {
        self.state().manners.weak_renames = yes;
    }

    /// No file gets a second name: `hard_link` is `Unsupported`.
    pub fn set_no_links(&self, yes: bool) {
        self.state().manners.no_links = yes;
    }

    /// At most so many handles and locks at a time: then calls that need one fail as with EMFILE.
    pub fn set_handles_max(&self, most: Option<u64>) {
        self.state().manners.handles_max = most;
    }

    /// Calls `hook` before every sync of a file, which waits for it: a sync that hangs. The hook may let a
    /// clock jump, or wait until a test lets it go on. Not forked.
    pub fn before_syncs(&self, hook: impl Fn(&Op) + Send + Sync + 'static) {
        *self.0.before_sync.lock() = Some(Arc::new(hook));
    }

    pub(super) fn wait_for_hook(&self, path: &Path) {
        let hook = self.0.before_sync.lock().clone();
        if let Some(hook) = hook {
            let number = self.ops() + 1;
            self.state().strike("hanging sync", Some(OpKind::Sync), path);
            hook(&Op {
                number,
                kind: OpKind::Sync,
                path: path.to_path_buf(),
            });
        }
    }

    // ---- misdeeds and bad sectors ----

    /// Does it to the first write (or read) from operation (or reading call) `at` on; once.
    pub fn misdo(&self, at: u64, misdeed: Misdeed) {
        self.state().plan.misdeeds.push((at, misdeed));
    }

    /// Reads that touch these bytes fail with an I/O error until faults are cleared; false if there is no
    /// such file.
    pub fn spoil(&self, path: impl AsRef<Path>, range: Range<u64>) -> bool {
        let mut state = self.state();
        match state.lookup(path.as_ref()) {
            Ok((ino, Node::File(_))) => {
                state.plan.spoilt.push((ino, range));
                true
            }
            _ => false,
        }
    }

    /// Every fault that struck since the last time this was asked.
    pub fn take_strikes(&self) -> Vec<Strike> {
        std::mem::take(&mut self.state().plan.strikes)
    }
}

impl State {
    pub(super) fn strike(&mut self, what: &'static str, op: Option<OpKind>, path: &Path) {
        let path = path.to_path_buf();
        self.plan.strikes.push(Strike { what, op, path });
    }

    /// Whether one more handle is to be had.
    pub(super) fn check_handles(&mut self, path: &Path) -> io::Result<()> {
        let held = self.open.values().sum::<u64>() + self.locks.len() as u64;
        if self.manners.handles_max.is_none_or(|most| held < most) {
            return Ok(());
        }
        self.strike("EMFILE", None, path);
        Err(io::Error::from_raw_os_error(TOO_MANY_OPEN))
    }

    /// Bytes that a write may still take.
    pub(super) fn room(&self) -> u64 {
        match self.manners.capacity {
            Some(capacity) if !self.manners.late_allocation => capacity.saturating_sub(self.used()),
            _ => u64::MAX,
        }
    }

    /// Whether a sync finds no room for what a file has grown by.
    pub(super) fn full_at_sync(&self, ino: Ino) -> bool {
        let manners = &self.manners;
        let over = manners.late_allocation && manners.capacity.is_some_and(|most| self.used() > most);
        over && matches!(self.nodes.get(&ino), Some(Node::File(file)) if file.has_grown())
    }

    /// After a file was synced.
    pub(super) fn sync_names_too(&mut self) {
        if !self.manners.names_with_files {
            return;
        }
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node
                && !dir.unsynced().is_empty()
            {
                Arc::make_mut(dir).sync(|_| true);
            }
        }
        self.half_synced.clear();
        self.sweep();
    }

    /// Takes the misdeed that is due at this call out of the plan.
    pub(super) fn due(&mut self, now: u64, for_read: bool) -> Option<Misdeed> {
        let due = |(at, misdeed): &(u64, Misdeed)| {
            *at <= now && matches!(misdeed, Misdeed::FlipInRead { .. }) == for_read
        };
        let at = self.plan.misdeeds.iter().position(due)?;
        Some(self.plan.misdeeds.remove(at).1)
    }

    /// Does a write wrongly.
    pub(super) fn miswrite(
        &mut self,
        misdeed: Misdeed,
        (ino, path): (Ino, &Path),
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let time = self.plan.ops;
        let end = offset + bytes.len() as u64;
        let grow = |file: &mut FileNode| {
            if file.current().len() < end {
                file.set_len(time, end);
            }
        };
        let what = match misdeed {
            Misdeed::FlipInWrite { bit } => {
                let mut bytes = bytes.to_vec();
                flip(&mut bytes, bit);
                self.file_mut(ino)?.write(time, &bytes, offset);
                "flip in a write"
            }
            Misdeed::MisplaceWrite { sectors } => {
                let file = self.file_mut(ino)?;
                grow(file);
                file.write(time, bytes, offset.saturating_sub(sectors * SECTOR_BYTES));
                "misplaced write"
            }
            Misdeed::WriteElsewhere => {
                grow(self.file_mut(ino)?);
                let others = self.nodes.iter().filter(|(other, node)| {
                    **other != ino && matches!(node, Node::File(file) if file.current().len() > offset)
                });
                let other = others.map(|(other, _)| *other).next_back();
                if let Some(file) = other.and_then(|other| self.file_mut(other).ok()) {
                    let room = (file.current().len() - offset) as usize;
                    file.write(time, &bytes[..bytes.len().min(room)], offset);
                }
                "write elsewhere"
            }
            Misdeed::LoseWrite | Misdeed::FlipInRead { .. } => {
                grow(self.file_mut(ino)?);
                "lost write"
            }
        };
        self.strike(what, Some(OpKind::Write), path);
        Ok(())
    }

    /// Whether a read touches a bad sector.
    pub(super) fn is_spoilt(&self, ino: Ino, offset: u64, len: u64) -> bool {
        let touches = |range: &Range<u64>| range.start < offset.saturating_add(len) && offset < range.end;
        self.plan
            .spoilt
            .iter()
            .any(|(bad, range)| *bad == ino && touches(range))
    }
}

/// Turns one bit.
pub(super) fn flip(bytes: &mut [u8], bit: u64) {
    let bits = bytes.len() as u64 * 8;
    if bits > 0 {
        let bit = bit % bits;
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}
