//! Value files: large values apart from the tables, so that compaction moves a reference and not the value.
//!
//! ```text
//! <db>/tables/<number:016x>.values        beside the tables, with numbers of the same kind
//! ```
//!
//! `format` is the clear parts and the reference, `writer` writes a file, `reader` opens one and finds a value, `kept` is
//! a value in the cache.
//! A table's entry of kind [`Separated`](crate::read::cursor::EntryKind::Separated) has a reference where a put has its
//! value.
//!
//! Invariants: a value is sealed by itself under its tenant's file key of this file, and bound to its place, its
//! version and its key, so that no two can be taken for one another; the clear rest (header, directory, footer) is
//! authenticated by its digest in the sealed manifest. A file is written once and never touched again. It stays as
//! long as a table of a version that somebody has refers to it.

mod format;
mod kept;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
mod reader;
mod writer;

pub(crate) use format::{Reference, ValueMeta};
pub(super) use kept::{KeptValue, ValueShortcuts};
pub(crate) use reader::ValueFile;
pub(crate) use writer::ValueWriter;

use super::filter;
use crate::seal::{Aad, Piece};
use crate::types::{SeqNo, TenantId};

/// Before a value: how it is stored. Zeroed bytes do not decode.
const STORED: u8 = 2;
const LZ4: u8 = 3;
const CODEC_BYTES: usize = 1;

/// Whose value it is, of which key and version, and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub tenant: TenantId,
    /// Tree key.
    pub key: &'a [u8],
    pub seqno: SeqNo,
}

impl Owner<'_> {
    fn aad(&self, file: [u8; 16], offset: u64, plain_len: u32) -> Aad {
        Aad {
            piece: Piece::Value,
            tenant: self.tenant,
            file,
            offset,
            plain_len,
            a: self.seqno.0,
            b: filter::hash(self.key, 0),
        }
    }
}
