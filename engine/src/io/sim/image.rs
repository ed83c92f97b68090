//! Content of a simulated file: pages shared by all copies until one of them is written to, what of
//! it is durable, and the list of what is not.
//!
//! A disk writes whole 512-byte sectors out of a cache that holds the newest bytes. So of the
//! unsynced writes to one sector a crash keeps some first part in time, possibly none or all; and of
//! two sectors each has its own. The length is metadata and has its own history: a kept length over
//! lost data reads as zeros, or, on file systems that do not order the two, as what was there before.

use std::io;
use std::sync::Arc;

use super::rng::SplitMix;

const PAGE_BYTES: usize = 4096;
/// The unit a disk writes whole.
pub(super) const SECTOR_BYTES: u64 = 512;
/// No simulated file is larger: a wild offset is an error, not an allocation.
const FILE_BYTES_MAX: u64 = 4 << 30;

type Page = Option<Arc<[u8; PAGE_BYTES]>>;

/// Bytes in copy-on-write pages; a missing page is zeros.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: Vec<Page>,
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(bytes, 0);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset as usize;
        let mut rest = buf;
        while !rest.is_empty() {
            let (page, inside) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let (part, after) = rest.split_at_mut(rest.len().min(PAGE_BYTES - inside));
            match &self.pages[page] {
                Some(page) => part.copy_from_slice(&page[inside..inside + part.len()]),
                None => part.fill(0),
            }
            at += part.len();
            rest = after;
        }
        Ok(())
    }

    /// `offset` and length are within [`check_range`].
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        self.grow(offset + bytes.len() as u64);
        let mut at = offset as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, inside) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let (part, after) = rest.split_at(rest.len().min(PAGE_BYTES - inside));
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[inside..inside + part.len()].copy_from_slice(part);
            at += part.len();
            rest = after;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len >= self.len {
            return self.grow(len);
        }
        self.len = len;
        self.pages.truncate(len.div_ceil(PAGE_BYTES as u64) as usize);
        let inside = len as usize % PAGE_BYTES;
        if inside > 0
            && let Some(Some(last)) = self.pages.last_mut()
        {
            Arc::make_mut(last)[inside..].fill(0);
        }
    }

    /// Whether both hold the same bytes; shared pages are not compared.
    pub(super) fn same_as(&self, other: &Content) -> bool {
        let same = |(a, b): (&Page, &Page)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            (Some(page), None) | (None, Some(page)) => page.iter().all(|byte| *byte == 0),
        };
        self.len == other.len && self.pages.iter().zip(&other.pages).all(same)
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pages.len() * PAGE_BYTES);
        for page in &self.pages {
            bytes.extend_from_slice(page.as_deref().unwrap_or(&[0; PAGE_BYTES]));
        }
        bytes.truncate(self.len as usize);
        bytes
    }

    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.pages
            .resize(self.len.div_ceil(PAGE_BYTES as u64) as usize, None);
    }
}

/// Rejects what no test means to write.
pub(super) fn check_range(offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(()),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, bytes } => content.write(bytes, *offset),
            Change::SetLen(len) => content.set_len(*len),
        }
    }

    fn len_after(&self, before: u64) -> u64 {
        match self {
            Change::Write { offset, bytes } => before.max(offset + bytes.len() as u64),
            Change::SetLen(len) => *len,
        }
    }
}

#[derive(Clone)]
struct Unsynced {
    /// Number of the operation that made it.
    time: u64,
    change: Change,
}

/// A file apart from its names.
#[derive(Clone, Default)]
pub(super) struct FileNode {
    /// What readers see.
    current: Content,
    /// What a crash leaves for certain.
    durable: Content,
    unsynced: Vec<Unsynced>,
    /// A sync failed: `current` holds bytes that no later sync makes durable.
    lossy: bool,
}

/// What a crash does to unsynced changes of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Drop,
    Keep,
    /// Those up to an operation.
    Until(u64),
    /// Each sector and length on its own: kept in so many of 256 cases.
    Each {
        keep: u64,
        length: Length,
        torn: bool,
        garbage: bool,
    },
}

/// Which length a crash leaves, when each change has its own fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// The newest: metadata before data.
    Newest,
    /// The durable one: data before metadata.
    Oldest,
    /// Any of its history.
    Any,
}

impl FileNode {
    /// Content that is durable already.
    pub(super) fn settled(content: Content) -> FileNode {
        FileNode {
            current: content.clone(),
            durable: content,
            ..FileNode::default()
        }
    }

    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    pub(super) fn write(&mut self, time: u64, bytes: &[u8], offset: u64) {
        self.push(
            time,
            Change::Write {
                offset,
                bytes: bytes.into(),
            },
        );
    }

    pub(super) fn set_len(&mut self, time: u64, len: u64) {
        self.push(time, Change::SetLen(len));
    }

    fn push(&mut self, time: u64, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(Unsynced { time, change });
    }

    pub(super) fn sync(&mut self) {
        if self.lossy {
            self.unsynced
                .iter()
                .for_each(|u| u.change.apply(&mut self.durable));
        } else {
            self.durable = self.current.clone();
        }
        self.unsynced.clear();
    }

    /// The kernel marks the pages clean and forgets: readable, never written.
    pub(super) fn fail_sync(&mut self) {
        if !self.unsynced.is_empty() {
            self.unsynced.clear();
            self.lossy = true;
        }
    }

    pub(super) fn unsynced(&self) -> u64 {
        self.unsynced.len() as u64
    }

    /// Whether it is longer than what is durable of it.
    pub(super) fn has_grown(&self) -> bool {
        self.current.len() > self.durable.len()
    }

    /// Whether a crash may leave other bytes than are read now.
    pub(super) fn is_settled(&self) -> bool {
        self.unsynced.is_empty() && !self.lossy
    }

    /// The content after a crash.
    pub(super) fn crash(&self, fate: Fate, rng: &mut SplitMix) -> Content {
        match fate {
            _ if self.is_settled() => self.durable.clone(),
            Fate::Drop => self.durable.clone(),
            Fate::Keep if !self.lossy => self.current.clone(),
            Fate::Keep => self.until(u64::MAX),
            Fate::Until(time) => self.until(time),
            Fate::Each {
                keep,
                length,
                torn,
                garbage,
            } => self.each(keep, length, torn, garbage, rng),
        }
    }

    fn until(&self, time: u64) -> Content {
        let mut content = self.durable.clone();
        self.unsynced
            .iter()
            .take_while(|u| u.time <= time)
            .for_each(|u| u.change.apply(&mut content));
        content
    }

    fn each(&self, keep: u64, length: Length, torn: bool, garbage: bool, rng: &mut SplitMix) -> Content {
        let count = self.unsynced.len();
        let sized = match length {
            Length::Newest => count,
            Length::Oldest => 0,
            Length::Any => rng.below(count as u64 + 1) as usize,
        };
        // A cut is a barrier: what it removed does not come back with the length, and what was
        // written after it goes with it.
        let mut lens = vec![self.durable.len()];
        for u in &self.unsynced {
            lens.push(u.change.len_after(lens[lens.len() - 1]));
        }
        let cuts = |i: &usize| lens[i + 1] < lens[*i];
        let first = (0..sized).rev().find(cuts).map_or(0, |i| i + 1);
        let end = (sized..count).find(cuts).unwrap_or(count);

        let mut content = self.durable.clone();
        self.unsynced[..first]
            .iter()
            .for_each(|u| u.change.apply(&mut content));
        let settled_len = content.len();
        let mut lost = std::collections::BTreeSet::new();
        for u in &self.unsynced[first..end] {
            let Change::Write { offset, bytes } = &u.change else {
                continue;
            };
            let mut at = *offset;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let sector = at / SECTOR_BYTES;
                let (piece, after) =
                    rest.split_at(rest.len().min(((sector + 1) * SECTOR_BYTES - at) as usize));
                if lost.contains(&sector) {
                    // Its disk copy is older than this piece.
                } else if rng.chance(keep) {
                    content.write(piece, at);
                } else {
                    lost.insert(sector);
                    if torn {
                        content.write(&piece[..rng.below(piece.len() as u64) as usize], at);
                    } else if garbage && at >= settled_len {
                        let mut stale = piece.to_vec();
                        rng.fill(&mut stale);
                        content.write(&stale, at);
                    }
                }
                at += piece.len() as u64;
                rest = after;
            }
        }
        content.set_len(lens[sized]);
        content
    }
}
