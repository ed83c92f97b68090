//! What memtables, tables, levels and merges have in common: a cursor over one tenant's entries.
//!
//! A *tree key* is the keyspace id, four bytes big-endian, followed by the user's key. Inside one
//! tenant, entries are in *internal order*: tree key ascending (bytewise), then [`SeqNo`] descending,
//! so that the newest version of a key comes first.
//!
//! Invariants: a cursor sees one tenant; it starts unpositioned; an error is returned and leaves it
//! unpositioned; stepping an unpositioned cursor does nothing. What a cursor is on is looked at where it
//! lies; only what leaves the engine, or must outlive a step, is taken out of it: as slices of the memory it was
//! found in, never copies.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::error::Result;
use crate::expiry::{DATE_BYTES, STAMP_BYTES};
use crate::hooks::rare;
use crate::table::{Reference, Stretch};
use crate::types::SeqNo;

/// What an entry says about its key. 0 is unused, so zeroed bytes never decode.
///
/// As wide as a word: where it is a byte, what a get found, or did not, is copied in two loads that meet the byte just stored
/// and its padding, and the processor waits for the store each time (a tenth of a get that finds nothing).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum EntryKind {
    /// The key has the entry's value.
    Put = 1,
    /// The key is gone; the value is empty.
    Delete = 2,
    /// The key has the entry's value until a moment, which stands in front of it: see `expiry`.
    Expiring = 3,
    /// The key has the entry's value, in front of which stand the moment at which it was written and one at which it
    /// expires: of keyspaces with a retention, see `retention`.
    Dated = 4,
    /// The key has the value that the entry's stands for, in a value file: as a put otherwise. Only in tables.
    Separated = 6,
}

/// The same in a byte, for what there are many of.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum KindByte {
    Put = 1,
    Delete = 2,
    Expiring = 3,
    Dated = 4,
    Separated = 6,
}

impl From<EntryKind> for KindByte {
    #[inline]
    fn from(kind: EntryKind) -> KindByte {
        match kind {
            EntryKind::Put => KindByte::Put,
            EntryKind::Delete => KindByte::Delete,
            EntryKind::Expiring => KindByte::Expiring,
            EntryKind::Dated => KindByte::Dated,
            EntryKind::Separated => KindByte::Separated,
        }
    }
}

impl From<KindByte> for EntryKind {
    #[inline]
    fn from(kind: KindByte) -> EntryKind {
        match kind {
            KindByte::Put => EntryKind::Put,
            KindByte::Delete => EntryKind::Delete,
            KindByte::Expiring => EntryKind::Expiring,
            KindByte::Dated => EntryKind::Dated,
            KindByte::Separated => EntryKind::Separated,
        }
    }
}

impl EntryKind {
    /// The kind stored as `byte`, if it is one.
    pub(crate) fn from_byte(byte: u8) -> Option<EntryKind> {
        match byte {
            1 => Some(EntryKind::Put),
            2 => Some(EntryKind::Delete),
            3 => Some(EntryKind::Expiring),
            4 => Some(EntryKind::Dated),
            6 => Some(EntryKind::Separated),
            _ => None,
        }
    }

    /// Whether an entry of this kind may have a stored value of `len` bytes.
    pub(crate) fn admits(self, len: usize) -> bool {
        match self {
            EntryKind::Delete => len == 0,
            EntryKind::Separated => len == Reference::BYTES,
            _ => len >= self.stamp_bytes(),
        }
    }

    /// What stands in front of the user's value.
    pub(crate) fn stamp_bytes(self) -> usize {
        match self {
            EntryKind::Put | EntryKind::Delete | EntryKind::Separated => 0,
            EntryKind::Expiring => STAMP_BYTES,
            EntryKind::Dated => DATE_BYTES,
        }
    }
}

/// One version of one key, where it lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRef<'a> {
    /// Tree key: keyspace id big-endian, then the user's key.
    pub key: &'a [u8],
    /// The version.
    pub seqno: SeqNo,
    /// Put or delete.
    pub kind: EntryKind,
    /// Empty for a delete.
    pub value: &'a [u8],
}

impl EntryRef<'_> {
    /// What is left of it when its value has expired: it hides what is older as before.
    pub(crate) fn as_delete(self) -> Self {
        match self.kind {
            EntryKind::Expiring => {
                rare!(ExpiredMadeDelete);
            }
            EntryKind::Dated => {
                rare!(DatedMadeDelete);
            }
            EntryKind::Put | EntryKind::Separated => {
                rare!(UndatedMadeDelete);
            }
            EntryKind::Delete => {}
        }
        EntryRef {
            kind: EntryKind::Delete,
            value: &[],
            ..self
        }
    }

    /// How this entry compares to the place (`key`, `seqno`) in internal order.
    pub(crate) fn order(&self, key: &[u8], seqno: SeqNo) -> Ordering {
        internal_order(self.key, self.seqno, key, seqno)
    }
}

/// What a point read finds: the entry without its key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The version.
    pub seqno: SeqNo,
    /// Put or delete.
    pub kind: EntryKind,
    /// Empty for a delete.
    pub value: Bytes,
}

/// The same, taken out. Cheap to clone: key and value are slices of a block or a memtable's chunk.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Tree key: keyspace id big-endian, then the user's key.
    pub key: Bytes,
    /// The version.
    pub seqno: SeqNo,
    /// Put or delete.
    pub kind: EntryKind,
    /// Empty for a delete.
    pub value: Bytes,
}

impl Entry {
    /// To look at.
    pub(crate) fn view(&self) -> EntryRef<'_> {
        EntryRef {
            key: &self.key,
            seqno: self.seqno,
            kind: self.kind,
            value: &self.value,
        }
    }
}

#[cfg(test)]
impl From<&Entry> for Found {
    fn from(entry: &Entry) -> Found {
        Found {
            seqno: entry.seqno,
            kind: entry.kind,
            value: entry.value.clone(),
        }
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} of {} bytes at {}",
            self.kind,
            self.value.len(),
            self.seqno
        )
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.view().fmt(f)
    }
}

impl std::fmt::Debug for EntryRef<'_> {
    // Never keys and values: errors and logs may carry what they format.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} of {}+{} bytes at {}",
            self.kind,
            self.key.len(),
            self.value.len(),
            self.seqno
        )
    }
}

/// Internal order of two places of one tenant: key ascending, then version descending.
pub(crate) fn internal_order(key: &[u8], seqno: SeqNo, other_key: &[u8], other_seqno: SeqNo) -> Ordering {
    key.cmp(other_key).then(other_seqno.cmp(&seqno))
}

/// Over ONE tenant, in internal order. Unpositioned at first, after an error, and past either end.
pub(crate) trait Cursor: Send {
    /// To the first entry at or after (`key`, `seqno`).
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()>;
    /// To the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// To the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// To the last entry whose tree key is smaller than `key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// To the next entry; unpositioned after the last. Does nothing when unpositioned.
    fn next(&mut self) -> Result<()>;
    /// To the first entry of the next key, past the older versions of this one; unpositioned after the last
    /// key. Does nothing when unpositioned.
    fn next_key(&mut self) -> Result<()>;
    /// To the previous entry; unpositioned before the first. Does nothing when unpositioned.
    fn prev(&mut self) -> Result<()>;
    /// The entry the cursor is on, if it is positioned.
    fn entry(&self) -> Option<EntryRef<'_>>;
    /// The same, taken out.
    fn owned(&self) -> Option<Entry>;
    /// Whether the cursor knows, without a look at anything else, that no entry before the one it is on has the
    /// same key. False says nothing.
    fn is_newest(&self) -> bool {
        false
    }
    /// What follows the entry that the cursor is on as far as it lies in the same block and below `below`, with nothing
    /// of other sources in between: to go over without the cursor, which stays where it is. None says nothing. Going
    /// forwards only. `spare`: one that was left, to be made use of again.
    fn stretch(&mut self, _below: Option<&[u8]>, _spare: &mut Option<Stretch>) -> Option<Stretch> {
        None
    }
    /// To where a stretch goes on from its end: one that the cursor lent last, and has not moved since.
    fn leave(&mut self, _stretch: &Stretch) -> Result<()> {
        Ok(())
    }
}

impl<C: Cursor + ?Sized> Cursor for Box<C> {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        (**self).seek(key, seqno)
    }
    fn seek_first(&mut self) -> Result<()> {
        (**self).seek_first()
    }
    fn seek_last(&mut self) -> Result<()> {
        (**self).seek_last()
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        (**self).seek_before(key)
    }
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    fn next_key(&mut self) -> Result<()> {
        (**self).next_key()
    }
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
    fn entry(&self) -> Option<EntryRef<'_>> {
        (**self).entry()
    }
    fn owned(&self) -> Option<Entry> {
        (**self).owned()
    }
    fn is_newest(&self) -> bool {
        (**self).is_newest()
    }
    fn stretch(&mut self, below: Option<&[u8]>, spare: &mut Option<Stretch>) -> Option<Stretch> {
        (**self).stretch(below, spare)
    }
    fn leave(&mut self, stretch: &Stretch) -> Result<()> {
        (**self).leave(stretch)
    }
}
