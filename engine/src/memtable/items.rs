//! What a memtable holds, in the order it came: entries that are written once and read from then on.
//!
//! Key and value stand side by side in chunks that many entries share, so that an insert allocates
//! nothing and a get hands out a slice. Values too large for that are kept as they came.
//!
//! Invariants: an item never changes after `push` returned its index; `push` is called by one thread at
//! a time.

use std::cmp::Ordering;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};

use super::arena::Arena;
use crate::prefetch::prefetch;
use crate::read::cursor::{Entry, EntryKind, EntryRef, Found, KindByte};
use crate::types::{SeqNo, TenantId};

/// Bytes that entries share. A reader that keeps a value keeps its chunk.
const CHUNK_BYTES: usize = 32 << 10;
/// A larger value gets memory of its own.
const SHARED_BYTES_MAX: usize = 4 << 10;
/// A value of this size is not copied: it keeps the batch it came with.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// A place in the order: tenant, tree key, version descending.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub tenant: u64,
    pub key: &'a [u8],
    pub seqno: SeqNo,
}

impl<'a> Place<'a> {
    pub(super) fn new(tenant: TenantId, key: &'a [u8], seqno: SeqNo) -> Place<'a> {
        Place {
            tenant: tenant.0,
            key,
            seqno,
        }
    }
}

/// One entry.
pub(super) struct Item {
    /// The key, then the value unless it is `large`.
    body: Bytes,
    large: Option<Box<Bytes>>,
    pub tenant: TenantId,
    pub seqno: SeqNo,
    key_len: u32,
    kind: KindByte,
}

const _: () = assert!(size_of::<Item>() <= 64, "one line of memory");

impl Item {
    pub(super) fn key(&self) -> &[u8] {
        self.body.get(..self.key_len as usize).unwrap_or_default()
    }

    /// Has the ends of key and value fetched.
    fn prefetch_body(&self) {
        self.body
            .first()
            .into_iter()
            .chain(self.body.last())
            .for_each(prefetch);
    }

    pub(super) fn value(&self) -> Bytes {
        match &self.large {
            Some(value) => Bytes::clone(value),
            // `push` made the body at least as long as the key.
            None if self.body.len() > self.key_len as usize => self.body.slice(self.key_len as usize..),
            None => Bytes::new(),
        }
    }

    pub(super) fn view(&self) -> EntryRef<'_> {
        let value = match &self.large {
            Some(value) => value,
            None => self.body.get(self.key_len as usize..).unwrap_or_default(),
        };
        EntryRef {
            key: self.key(),
            seqno: self.seqno,
            kind: self.kind.into(),
            value,
        }
    }

    pub(super) fn found(&self) -> Found {
        Found {
            seqno: self.seqno,
            kind: self.kind.into(),
            value: self.value(),
        }
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            key: self.body.slice(..self.body.len().min(self.key_len as usize)),
            seqno: self.seqno,
            kind: self.kind.into(),
            value: self.value(),
        }
    }

    /// How the item, which is of the same tenant, compares to `place`.
    pub(super) fn order(&self, place: &Place<'_>) -> Ordering {
        self.key().cmp(place.key).then(place.seqno.cmp(&self.seqno))
    }
}

/// What the one writer keeps.
#[derive(Default)]
pub(super) struct ItemWriter {
    count: u32,
    chunk: BytesMut,
}

/// All items of a memtable.
pub(super) struct Items {
    arena: Arena<OnceLock<Item>, 256>,
}

impl Items {
    pub(super) fn new() -> Items {
        Items { arena: Arena::new() }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Item> {
        self.arena.get(index)?.get()
    }

    /// Has fetched what `bodies` consist of, which takes a look at each, and the items `later` themselves.
    pub(super) fn prefetch(&self, bodies: &[u32], later: &[u32]) {
        let items = bodies.iter().filter_map(|index| self.get(*index));
        items.for_each(Item::prefetch_body);
        later
            .iter()
            .filter_map(|index| self.arena.get(*index))
            .for_each(prefetch);
    }

    /// Adds an item; its index, and the memory it takes. None when all indexes are given out.
    pub(super) fn push(
        &self,
        writer: &mut ItemWriter,
        (tenant, seqno, kind): (TenantId, SeqNo, EntryKind),
        key: &[u8],
        value: Bytes,
    ) -> Option<(u32, usize)> {
        let index = writer.count;
        let shared = value.len() <= SHARED_BYTES_MAX;
        let body = if shared { value.as_ref() } else { &[] };
        let len = key.len() + body.len();
        let mut memory = size_of::<OnceLock<Item>>() + len;
        if writer.chunk.capacity() < len {
            // What is left of the old chunk is lost, and counted.
            memory += writer.chunk.capacity();
            writer.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(len));
        }
        writer.chunk.extend_from_slice(key);
        writer.chunk.extend_from_slice(body);
        let body = writer.chunk.split().freeze();
        let large = (!shared).then(|| {
            memory += value.len() + size_of::<Bytes>();
            Box::new(if value.len() <= COPIED_BYTES_MAX {
                Bytes::copy_from_slice(&value)
            } else {
                value
            })
        });
        let item = Item {
            body,
            large,
            tenant,
            seqno,
            key_len: u32::try_from(key.len()).ok()?,
            kind: kind.into(),
        };
        self.arena.make(index)?.set(item).ok()?;
        writer.count = index.checked_add(1)?;
        Some((index, memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_takes_72_bytes_at_most() {
        assert!(
            size_of::<OnceLock<Item>>() <= 72,
            "{}",
            size_of::<OnceLock<Item>>()
        );
    }

    #[test]
    fn values_of_every_size_come_back_and_are_counted() {
        let (items, mut writer) = (Items::new(), ItemWriter::default());
        let sizes = [0, 1, 4095, 4096, 4097, 65_536, 65_537, 200_000, 3];
        let mut memory = 0;
        for (i, size) in sizes.into_iter().enumerate() {
            let (key, value) = (vec![i as u8; 1 + i * 2000], Bytes::from(vec![i as u8; size]));
            let head = (TenantId(1), SeqNo(i as u64), EntryKind::Put);
            let (index, bytes) = items.push(&mut writer, head, &key, value.clone()).unwrap();
            assert_eq!(index, i as u32);
            memory += bytes;
            let item = items.get(index).unwrap();
            assert_eq!((item.key(), item.value()), (&key[..], value.clone()));
            assert_eq!(item.entry().value, value);
        }
        let user: usize = sizes
            .iter()
            .enumerate()
            .map(|(i, size)| size + 1 + i * 2000)
            .sum();
        assert!(memory >= user + sizes.len() * size_of::<OnceLock<Item>>());
        // At most the rests of chunks beside.
        assert!(memory < user + sizes.len() * (size_of::<OnceLock<Item>>() + 32 + CHUNK_BYTES));
        assert!(items.get(sizes.len() as u32).is_none());
    }
}
