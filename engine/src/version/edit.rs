//! Edits: what changes from one version to the next, as the manifest stores it.
//!
//! ```text
//! edit, or full state:  field*
//! field:   offset  size  (little-endian)
//!               0     1  tag      see `tag`; 0 never written
//!               1     4  len      bytes of the value
//!               5   len  value
//!
//! tag  value                                       in an edit      in a full state
//!   1  level u8, table meta                        any number      any number, in level order
//!   2  level u8, table number u64                  any number      never
//!   3  flushed Lsn                                 at most once    once
//!   4  newest SeqNo in tables                      at most once    once
//!   5  epoch u64, start Lsn u64, chain 16          at most once    any number, oldest first
//!   6  highest epoch                               at most once    once
//!   7  fenced by, 0 = by none                      at most once    once
//!   8  database id, 16 bytes                       at most once    once
//!   9  node state u8                               at most once    once
//!  10  WAL reach, Lsn                              at most once    once
//!  11  next file number                            never           once
//!  12  value file meta                             any number      any number
//!  13  table number u64, then for each value file  once for each   once for each
//!      that the table refers to, ascending: its    such table
//!      number u64, bytes u64
//!  14  ids below were given out to tenants, u64    at most once    at most once
//! ```
//!
//! Valid if and only if: (1) fields fill the bytes exactly; (2) every tag is known (else the file was
//! written by a newer version: `Unsupported`); (3) every value has exactly its length; (4) levels are
//! below `LEVELS` and the node state is known; (5) the counts of the table above hold; (6) a field of tag 13 comes after
//! its table's and says something.
//!
//! [`ManifestState::apply`] is the one place that says what an edit does to the state, at run time
//! and at replay alike.

use crate::table::{TableMeta, ValueMeta};
use crate::types::{Chain, Epoch, EpochStart, Lsn, SeqNo};

use super::LEVELS;

/// Field tags. Zeroed media never decodes.
mod tag {
    pub const ADDED: u8 = 1;
    pub const REMOVED: u8 = 2;
    pub const FLUSHED: u8 = 3;
    pub const SEQNO: u8 = 4;
    pub const EPOCH: u8 = 5;
    pub const HIGHEST_EPOCH: u8 = 6;
    pub const FENCED_BY: u8 = 7;
    pub const DATABASE_ID: u8 = 8;
    pub const STATE: u8 = 9;
    pub const REACH: u8 = 10;
    pub const NEXT_NUMBER: u8 = 11;
    pub const VALUE_FILE: u8 = 12;
    pub const REFERS: u8 = 13;
    pub const TENANTS: u8 = 14;
}

/// Whether this copy of the database may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum NodeState {
    /// Normal.
    #[default]
    Serving = 1,
    /// Restored from a backup, and nobody has accepted it yet: refuses writes.
    AwaitingAcceptance = 2,
    /// Follows a primary. Its log's watermarks are that primary's: what they call durable need not be here.
    Following = 3,
}

impl NodeState {
    fn from_u8(value: u8) -> Option<NodeState> {
        match value {
            1 => Some(NodeState::Serving),
            2 => Some(NodeState::AwaitingAcceptance),
            3 => Some(NodeState::Following),
            _ => None,
        }
    }
}

/// Everything the manifest knows apart from the tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ManifestState {
    /// The WAL before this position is in tables. Never goes back.
    pub flushed: Lsn,
    /// Newest version in tables.
    pub seqno: SeqNo,
    /// Reigns this history went through, oldest first; epochs rise, starts do not fall.
    pub epochs: Vec<EpochStart>,
    /// Highest epoch ever recorded here. Never goes back: it fences.
    pub highest_epoch: Epoch,
    /// Set when a newer primary is known.
    pub fenced_by: Option<Epoch>,
    /// Identity of the database; a restore gives a new one.
    pub database_id: [u8; 16],
    /// Whether this copy may serve.
    pub state: NodeState,
    /// The WAL must reach at least here, else bytes that were durable are gone.
    pub reach: Lsn,
    /// Ids below were given out to tenants when the log was last flushed: a keystore that knows fewer was cut or
    /// exchanged. 0, nothing known, in a copy, whose keys come from elsewhere, and on a standby, which takes over what
    /// its primary has.
    pub tenants: u64,
}

impl ManifestState {
    /// The newest id that was given out, as far as that is known.
    pub fn newest_tenant(&self) -> Option<u64> {
        self.tenants.checked_sub(1)
    }

    /// Applies the scalar fields of `edit`. On error the state is unchanged and the edit must not be
    /// logged: the text names the rule it breaks.
    ///
    /// A new reign drops reigns that began after its start: a node that rewound onto another
    /// primary's history forgets the tail it gave up. One that is known drops all that follow it.
    pub fn apply(&mut self, edit: &Edit) -> std::result::Result<(), &'static str> {
        if edit.flushed.is_some_and(|flushed| flushed < self.flushed) {
            return Err("the flushed position goes back");
        }
        if let Some(new) = edit.epoch {
            let kept = self
                .epochs
                .iter()
                .take_while(|old| old.start <= new.start)
                .count();
            let again = self.epochs.iter().position(|old| *old == new);
            match (again, kept.checked_sub(1).and_then(|last| self.epochs.get(last))) {
                // What is behind it is given up, also a reign that began at the same place and had nothing.
                (Some(again), _) => self.epochs.truncate(again + 1),
                (None, Some(last)) if last.epoch >= new.epoch => return Err("the epoch does not rise"),
                (None, _) => {
                    self.epochs.truncate(kept);
                    self.epochs.push(new);
                }
            }
            self.highest_epoch = self.highest_epoch.max(new.epoch);
        }
        if let Some(flushed) = edit.flushed {
            self.flushed = flushed;
        }
        if let Some(seqno) = edit.seqno {
            self.seqno = self.seqno.max(seqno);
        }
        if let Some(epoch) = edit.highest_epoch {
            self.highest_epoch = self.highest_epoch.max(epoch);
        }
        if let Some(epoch) = edit.fenced_by {
            self.fenced_by = (epoch != Epoch::ZERO).then_some(epoch);
        }
        if let Some(id) = edit.database_id {
            self.database_id = id;
        }
        if let Some(state) = edit.state {
            self.state = state;
        }
        if let Some(tenants) = edit.tenants {
            self.tenants = tenants;
        }
        if let Some(reach) = edit.reach {
            // Two jobs may have looked at the log at different times: what was durable stays so.
            self.reach = self.reach.max(reach);
        }
        Ok(())
    }
}

/// A change to the version and the state. The default changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Edit {
    /// Tables that join a level. A number that is also in `removed` moves between levels.
    pub added: Vec<(u8, TableMeta)>,
    /// Tables that leave a level, by number.
    pub removed: Vec<(u8, u64)>,
    /// Value files that added tables refer to. They leave with the last table that refers to them.
    pub values: Vec<ValueMeta>,
    /// New flushed position.
    pub flushed: Option<Lsn>,
    /// Newest version the added tables bring.
    pub seqno: Option<SeqNo>,
    /// A new reign.
    pub epoch: Option<EpochStart>,
    /// A higher epoch was seen.
    pub highest_epoch: Option<Epoch>,
    /// A newer primary exists; zero clears.
    pub fenced_by: Option<Epoch>,
    /// New identity.
    pub database_id: Option<[u8; 16]>,
    /// New node state.
    pub state: Option<NodeState>,
    /// New WAL reach.
    pub reach: Option<Lsn>,
    /// Ids below were given out to tenants; 0 if that is not known any more.
    pub tenants: Option<u64>,
}

/// The first frame of a manifest: everything there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Full {
    /// The state.
    pub state: ManifestState,
    /// No file has this number or a higher one.
    pub next_number: u64,
    /// All tables, level by level, each level in its order.
    pub tables: Vec<(u8, TableMeta)>,
    /// All value files, by number.
    pub values: Vec<ValueMeta>,
}

/// Why bytes are no edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadEdit {
    /// A tag this version does not know.
    UnknownTag(u8),
    /// Against the rules of the format; the text says which.
    Malformed(&'static str),
}

impl Edit {
    /// The bytes of the edit.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (level, meta) in &self.added {
            put_table(&mut out, *level, meta);
        }
        for (level, number) in &self.removed {
            let mut value = vec![*level];
            value.extend_from_slice(&number.to_le_bytes());
            put(&mut out, tag::REMOVED, &value);
        }
        put_value_files(&mut out, &self.values);
        let mut scalar = |tag, value: Option<u64>| {
            if let Some(value) = value {
                put(&mut out, tag, &value.to_le_bytes());
            }
        };
        scalar(tag::FLUSHED, self.flushed.map(|v| v.0));
        scalar(tag::SEQNO, self.seqno.map(|v| v.0));
        scalar(tag::HIGHEST_EPOCH, self.highest_epoch.map(|v| v.0));
        scalar(tag::FENCED_BY, self.fenced_by.map(|v| v.0));
        scalar(tag::REACH, self.reach.map(|v| v.0));
        scalar(tag::TENANTS, self.tenants);
        if let Some(epoch) = &self.epoch {
            put_epoch(&mut out, epoch);
        }
        if let Some(id) = &self.database_id {
            put(&mut out, tag::DATABASE_ID, id);
        }
        if let Some(state) = self.state {
            put(&mut out, tag::STATE, &[state as u8]);
        }
        out
    }

    /// The edit in `bytes`, or why there is none.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Edit, BadEdit> {
        let mut edit = Edit::default();
        let mut fields = Take(bytes);
        while let Some((tag, mut value)) = fields.field()? {
            let value = &mut value;
            match tag {
                tag::ADDED => edit.added.push(value.table()?),
                tag::REMOVED => edit.removed.push((value.level()?, value.last_u64()?)),
                tag::VALUE_FILE => edit.values.push(value.value_file()?),
                tag::REFERS => value.refers(&mut edit.added)?,
                tag::FLUSHED => once(&mut edit.flushed, Lsn(value.last_u64()?))?,
                tag::SEQNO => once(&mut edit.seqno, SeqNo(value.last_u64()?))?,
                tag::EPOCH => once(&mut edit.epoch, value.epoch()?)?,
                tag::HIGHEST_EPOCH => once(&mut edit.highest_epoch, Epoch(value.last_u64()?))?,
                tag::FENCED_BY => once(&mut edit.fenced_by, Epoch(value.last_u64()?))?,
                tag::DATABASE_ID => once(&mut edit.database_id, value.last_array()?)?,
                tag::STATE => once(&mut edit.state, value.state()?)?,
                tag::REACH => once(&mut edit.reach, Lsn(value.last_u64()?))?,
                tag::TENANTS => once(&mut edit.tenants, value.last_u64()?)?,
                tag::NEXT_NUMBER => return Err(BadEdit::Malformed("file number outside a full state")),
                unknown => return Err(BadEdit::UnknownTag(unknown)),
            }
        }
        Ok(edit)
    }
}

impl Full {
    /// The bytes of the full state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (level, meta) in &self.tables {
            put_table(&mut out, *level, meta);
        }
        put_value_files(&mut out, &self.values);
        let state = &self.state;
        put(&mut out, tag::FLUSHED, &state.flushed.0.to_le_bytes());
        put(&mut out, tag::SEQNO, &state.seqno.0.to_le_bytes());
        for epoch in &state.epochs {
            put_epoch(&mut out, epoch);
        }
        put(&mut out, tag::HIGHEST_EPOCH, &state.highest_epoch.0.to_le_bytes());
        put(
            &mut out,
            tag::FENCED_BY,
            &state.fenced_by.unwrap_or(Epoch::ZERO).0.to_le_bytes(),
        );
        put(&mut out, tag::DATABASE_ID, &state.database_id);
        put(&mut out, tag::STATE, &[state.state as u8]);
        put(&mut out, tag::REACH, &state.reach.0.to_le_bytes());
        if state.tenants > 0 {
            put(&mut out, tag::TENANTS, &state.tenants.to_le_bytes());
        }
        put(&mut out, tag::NEXT_NUMBER, &self.next_number.to_le_bytes());
        out
    }

    /// The full state in `bytes`, or why there is none.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Full, BadEdit> {
        let (mut flushed, mut seqno, mut highest, mut fenced) = (None, None, None, None);
        let (mut id, mut node, mut reach, mut next_number) = (None, None, None, None);
        let mut tenants = None;
        let (mut epochs, mut tables) = (Vec::<EpochStart>::new(), Vec::new());
        let mut values = Vec::new();
        let mut fields = Take(bytes);
        while let Some((tag, mut value)) = fields.field()? {
            let value = &mut value;
            match tag {
                tag::ADDED => tables.push(value.table()?),
                tag::VALUE_FILE => values.push(value.value_file()?),
                tag::REFERS => value.refers(&mut tables)?,
                tag::REMOVED => return Err(BadEdit::Malformed("removed table in a full state")),
                tag::FLUSHED => once(&mut flushed, Lsn(value.last_u64()?))?,
                tag::SEQNO => once(&mut seqno, SeqNo(value.last_u64()?))?,
                tag::EPOCH => epochs.push(value.epoch()?),
                tag::HIGHEST_EPOCH => once(&mut highest, Epoch(value.last_u64()?))?,
                tag::FENCED_BY => once(&mut fenced, Epoch(value.last_u64()?))?,
                tag::DATABASE_ID => once(&mut id, value.last_array()?)?,
                tag::STATE => once(&mut node, value.state()?)?,
                tag::REACH => once(&mut reach, Lsn(value.last_u64()?))?,
                tag::TENANTS => once(&mut tenants, value.last_u64()?)?,
                tag::NEXT_NUMBER => once(&mut next_number, value.last_u64()?)?,
                unknown => return Err(BadEdit::UnknownTag(unknown)),
            }
        }
        let rising = epochs.iter().zip(epochs.iter().skip(1));
        if !rising
            .into_iter()
            .all(|(old, new)| old.epoch < new.epoch && old.start <= new.start)
        {
            return Err(BadEdit::Malformed("epochs out of order"));
        }
        let missing = BadEdit::Malformed("full state lacks a field");
        let fenced = fenced.ok_or(missing)?;
        let state = ManifestState {
            flushed: flushed.ok_or(missing)?,
            seqno: seqno.ok_or(missing)?,
            epochs,
            highest_epoch: highest.ok_or(missing)?,
            fenced_by: (fenced != Epoch::ZERO).then_some(fenced),
            database_id: id.ok_or(missing)?,
            state: node.ok_or(missing)?,
            reach: reach.ok_or(missing)?,
            tenants: tenants.unwrap_or_default(),
        };
        Ok(Full {
            state,
            next_number: next_number.ok_or(missing)?,
            tables,
            values,
        })
    }
}

fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    // A value is a table's meta, or 16 bytes for each value file, at most: far below 4 GiB.
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    out.push(tag);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(value);
}

fn put_table(out: &mut Vec<u8>, level: u8, meta: &TableMeta) {
    let mut value = vec![level];
    meta.encode(&mut value);
    put(out, tag::ADDED, &value);
    if !meta.values.is_empty() {
        let mut value = meta.number.to_le_bytes().to_vec();
        for (file, bytes) in &meta.values {
            value.extend_from_slice(&file.to_le_bytes());
            value.extend_from_slice(&bytes.to_le_bytes());
        }
        put(out, tag::REFERS, &value);
    }
}

fn put_value_files(out: &mut Vec<u8>, metas: &[ValueMeta]) {
    for meta in metas {
        let mut value = Vec::with_capacity(ValueMeta::BYTES);
        meta.encode(&mut value);
        put(out, tag::VALUE_FILE, &value);
    }
}

fn put_epoch(out: &mut Vec<u8>, epoch: &EpochStart) {
    let mut value = Vec::with_capacity(32);
    value.extend_from_slice(&epoch.epoch.0.to_le_bytes());
    value.extend_from_slice(&epoch.start.0.to_le_bytes());
    value.extend_from_slice(&epoch.chain.0);
    put(out, tag::EPOCH, &value);
}

fn once<T>(slot: &mut Option<T>, value: T) -> std::result::Result<(), BadEdit> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadEdit::Malformed("a field appears twice")),
    }
}

/// What is left to read. `last_*` must take all of it.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn field(&mut self) -> std::result::Result<Option<(u8, Take<'a>)>, BadEdit> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let [tag] = self.array::<1>()?;
        let len = u32::from_le_bytes(self.array()?);
        let len = usize::try_from(len).map_err(|_| SHORT)?;
        let (value, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(Some((tag, Take(value))))
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], BadEdit> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    fn last_array<const N: usize>(&mut self) -> std::result::Result<[u8; N], BadEdit> {
        let value = self.array()?;
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(BadEdit::Malformed("a field is too long"))
        }
    }

    fn last_u64(&mut self) -> std::result::Result<u64, BadEdit> {
        self.last_array().map(u64::from_le_bytes)
    }

    fn level(&mut self) -> std::result::Result<u8, BadEdit> {
        let [level] = self.array()?;
        if usize::from(level) < LEVELS {
            Ok(level)
        } else {
            Err(BadEdit::Malformed("no such level"))
        }
    }

    fn table(&mut self) -> std::result::Result<(u8, TableMeta), BadEdit> {
        let level = self.level()?;
        let meta = TableMeta::decode(self.0).ok_or(BadEdit::Malformed("table meta"))?;
        Ok((level, meta))
    }

    fn value_file(&mut self) -> std::result::Result<ValueMeta, BadEdit> {
        ValueMeta::decode(self.0).ok_or(BadEdit::Malformed("value file meta"))
    }

    /// What one of `tables`, most often the last, refers to.
    fn refers(&mut self, tables: &mut [(u8, TableMeta)]) -> std::result::Result<(), BadEdit> {
        let number = u64::from_le_bytes(self.array()?);
        let table = tables.iter_mut().rev().find(|(_, meta)| meta.number == number);
        let (_, meta) = table.ok_or(BadEdit::Malformed("references of no table"))?;
        if !meta.values.is_empty() || self.0.is_empty() {
            return Err(BadEdit::Malformed("references of a table twice, or none"));
        }
        while !self.0.is_empty() {
            let file = u64::from_le_bytes(self.array()?);
            let bytes = u64::from_le_bytes(self.array()?);
            if meta.values.last().is_some_and(|(before, _)| *before >= file) || bytes == 0 {
                return Err(BadEdit::Malformed("references in order"));
            }
            meta.values.push((file, bytes));
        }
        Ok(())
    }

    fn epoch(&mut self) -> std::result::Result<EpochStart, BadEdit> {
        let epoch = Epoch(u64::from_le_bytes(self.array()?));
        let start = Lsn(u64::from_le_bytes(self.array()?));
        Ok(EpochStart {
            epoch,
            start,
            chain: Chain(self.last_array()?),
        })
    }

    fn state(&mut self) -> std::result::Result<NodeState, BadEdit> {
        let [state] = self.last_array()?;
        NodeState::from_u8(state).ok_or(BadEdit::Malformed("unknown node state"))
    }
}

const SHORT: BadEdit = BadEdit::Malformed("a field is cut short");
