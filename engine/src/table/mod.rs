//! Tables: immutable sorted files of sealed entries, many tenants in one.
//!
//! `builder` writes a table, `reader` opens it and finds single keys, by way of `run_reader`; `iter` walks one tenant's
//! entries; `range_deletes` are those of a run; `block`, `index`, `filter` and `format` are the parts, `compress`
//! makes blocks smaller, `cache` keeps the decrypted ones, `shown` and `slot` are shortcuts to them, `warm` hands them
//! on to tables that come after. `values` are the files of values that stand apart; `out_file` and
//! `sealed_file` are what they have in common with tables.
//!
//! Invariant: a block, index or filter holds one tenant's entries only, is sealed under that tenant's
//! file key of this table, and is bound to its offset in this file; the clear rest (header, tenant
//! directory, footer) is authenticated by its digest in the sealed manifest. So nothing can be
//! changed, moved, swapped or cut unnoticed, and a tenant's part becomes unreadable with its key.

mod block;
mod builder;
mod cache;
mod compress;
mod doorkeeper;
mod expectation;
mod filter;
mod format;
mod index;
mod iter;
mod out_file;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
mod piece_memory;
mod range_deletes;
mod reader;
mod run_reader;
mod sealed_file;
mod shown;
mod size;
mod slot;
mod tenant_run;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod values;
#[cfg(not(any(test, feature = "sim")))]
mod values;
mod verify;
mod warm;

pub(crate) use block::Stretch;
pub(crate) use builder::TableBuilder;
pub(crate) use cache::BlockCache;
pub(crate) use format::TableMeta;
pub(crate) use iter::TableCursor;
pub(crate) use reader::Table;
pub(crate) use size::KeyRange;
pub(crate) use values::{Owner, Reference, ValueFile, ValueMeta, ValueWriter};
pub(crate) use verify::ValueFiles;
