//! A cursor over one tenant's entries in one table.
//!
//! Its place is (section, block, entry); a run with one section has section 0 only. Going over the end
//! of a block loads the next one, through the cache; after a few blocks in a row it reads ahead, one
//! file read for many blocks. A *sweep* (compaction) reads ahead at once and leaves the blocks in the cache as they are.
//!
//! A seek borrows the heads on its way down, as a get does; who goes over the end of a block holds on to them.
//!
//! Invariants: as in `read::cursor`; the block of the place is held, so that a step inside a block neither looks
//! anything up nor fails; the key is asked for when something is decrypted for the first time (by a sweep, when it is
//! made), and a tenant whose key is destroyed then has nothing more here.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::block::{AHEAD, Block, Parts, Stretch, room};
use super::cache::Head;
use super::format::Run;
use super::index::Level;
use super::reader::Table;
use super::run_reader::RunReader;
use super::shown::Held;
use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::operation::count;
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::seal::FileKey;
use crate::types::{SeqNo, TenantId};

/// Most bytes read ahead.
const AHEAD_BYTES: u64 = 256 << 10;
/// Read ahead after so many blocks in a row, 16 KiB at first, then twice as much each time.
const AHEAD_AFTER: u32 = 2;
const AHEAD_FIRST_BYTES: u64 = 16 << 10;

pub(crate) struct TableCursor {
    table: Arc<Table>,
    /// None: the tenant has nothing here, or its key is destroyed.
    run: Option<Run>,
    /// Once it was needed.
    key: Option<Arc<FileKey>>,
    /// Whether heads are held from now on.
    holds: bool,
    /// The head of the run and that of a section, if they are held.
    top: Option<Arc<Head>>,
    section: Option<(usize, Arc<Head>)>,
    place: Option<Place>,
    /// Blocks entered forwards, one after the other.
    streak: u32,
    /// The move that is made has found its place.
    settled: bool,
    ahead: Option<Ahead>,
    sweep: bool,
}

/// Where the cursor is, with what that place needs in memory.
struct Place {
    section: usize,
    part: usize,
    block: Arc<Block>,
    index: usize,
    /// Of entry `index`.
    parts: Parts,
}

impl Place {
    /// To entry `index` of the block; false if it has none.
    fn step(&mut self, index: usize) -> bool {
        match self.block.parts(index) {
            Some(parts) => {
                (self.index, self.parts) = (index, parts);
                true
            }
            None => false,
        }
    }
}

/// The head over some blocks.
enum Under<'a> {
    /// The run has no other.
    Top(&'a Head),
    Section(Held),
}

impl Deref for Under<'_> {
    type Target = Head;

    fn deref(&self) -> &Head {
        match self {
            Under::Top(head) => head,
            Under::Section(head) => head,
        }
    }
}

/// Sealed bytes of the file from `start` on.
struct Ahead {
    start: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    fn slice(&self, span: &Range<u64>) -> Option<&[u8]> {
        let from = usize::try_from(span.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(span.end.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..to)
    }
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>, tenant: TenantId, sweep: bool) -> Result<TableCursor> {
        let mut run = table.find(tenant);
        let mut key = None;
        if let Some(found) = run.filter(|_| sweep) {
            key = table.key(&found)?;
            run = run.filter(|_| key.is_some());
        }
        Ok(TableCursor {
            table,
            run,
            key,
            holds: sweep,
            top: None,
            section: None,
            place: None,
            streak: 0,
            settled: false,
            ahead: None,
            sweep,
        })
    }

    /// Whether it is on an entry.
    pub(crate) fn is_positioned(&self) -> bool {
        self.place.is_some()
    }

    /// Reads with `read`, and keeps the key if it was needed.
    fn read<R>(&mut self, read: impl FnOnce(&mut RunReader<'_>) -> Result<Option<R>>) -> Result<Option<R>> {
        let Some(run) = self.run else { return Ok(None) };
        let mut reader = RunReader::with_key(&self.table, run, self.key.take());
        if self.sweep {
            reader = reader.uncounted();
        }
        let outcome = read(&mut reader);
        self.key = reader.into_key();
        outcome
    }

    /// The head of the run.
    fn top(&mut self) -> Result<Option<Held>> {
        if let Some(top) = &self.top {
            return Ok(Some(Held::Own(top.clone())));
        }
        let Some(top) = self.read(|reader| reader.top())? else {
            return Ok(None);
        };
        if self.holds || top.is_own() {
            let top = top.into_arc();
            self.top = Some(top.clone());
            return Ok(Some(Held::Own(top)));
        }
        Ok(Some(top))
    }

    fn sections(top: &Head) -> usize {
        match top.index.level() {
            Level::Blocks => 1,
            Level::Sections => top.index.len(),
        }
    }

    /// The head of section `section`; None past the last.
    fn head<'a>(&mut self, top: &'a Head, section: usize) -> Result<Option<Under<'a>>> {
        match (top.index.level(), &self.section) {
            (Level::Blocks, _) => Ok((section == 0).then_some(Under::Top(top))),
            (Level::Sections, Some((at, head))) if *at == section => {
                Ok(Some(Under::Section(Held::Own(head.clone()))))
            }
            (Level::Sections, _) => {
                let Some(head) = self.read(|reader| reader.section(top, section))? else {
                    return Ok(None);
                };
                if self.holds || head.is_own() {
                    let head = head.into_arc();
                    self.section = Some((section, head.clone()));
                    return Ok(Some(Under::Section(Held::Own(head))));
                }
                Ok(Some(Under::Section(head)))
            }
        }
    }

    fn block(&mut self, head: &Head, section: usize, part: usize) -> Result<Option<Arc<Block>>> {
        let here = |place: &&Place| place.part == part && place.section == section;
        if let Some(place) = self.place.as_ref().filter(here) {
            return Ok(Some(place.block.clone()));
        }
        let ahead_bytes = self.ahead_bytes();
        if ahead_bytes == 0 {
            if part < head.index.len() {
                count(|counters| counters.blocks += 1);
            }
            return self.read(|reader| reader.block(head, part));
        }
        let Some(handle) = head.index.handle(part) else {
            return Ok(None);
        };
        count(|counters| counters.blocks += 1);
        let cached = match self.sweep {
            true => self
                .table
                .cache
                .peek_block(self.table.meta().number, handle.offset),
            false => self.read(|reader| Ok(reader.cached_block(head, part)))?,
        };
        if cached.is_some() {
            return Ok(cached);
        }
        let span = handle.offset..handle.offset.saturating_add(u64::from(handle.bytes));
        let held = self
            .ahead
            .as_ref()
            .is_some_and(|ahead| ahead.slice(&span).is_some());
        let room = |len| room(len, handle.entries);
        let (mut alone, mut bytes_read) = (None, 0);
        if !held && u64::from(handle.bytes) >= ahead_bytes {
            // A large value: not worth holding on to.
            alone = Some(self.table.read_with_room(&span, room)?);
            bytes_read = u64::from(handle.bytes);
        } else if !held {
            // Up to the section's head. Decoding the index checked that its blocks end there.
            let last = head.index.handle(head.index.len() - 1);
            let limit = last.and_then(|handle| handle.end()).unwrap_or(span.end);
            let end = span.start.saturating_add(ahead_bytes).min(limit);
            let bytes = self.table.read(&(span.start..end))?;
            bytes_read = bytes.len() as u64;
            self.ahead = Some(Ahead {
                start: span.start,
                bytes,
            });
        }
        let sealed = alone.unwrap_or_else(|| {
            let ahead = self.ahead.as_ref().and_then(|ahead| ahead.slice(&span));
            let ahead = ahead.unwrap_or_default();
            let mut sealed = Vec::with_capacity(ahead.len() + room(ahead.len()));
            sealed.extend_from_slice(ahead);
            sealed
        });
        let sweep = self.sweep;
        self.read(|reader| {
            let Some(block) = reader.decode_block(head, part, sealed)? else {
                return Ok(None);
            };
            if sweep {
                return Ok(Some(Arc::new(block)));
            }
            reader.count_read(bytes_read);
            Ok(Some(reader.keep_if_asked_for_again(head, part, block)))
        })
    }

    /// How much to read for the next block; 0 for just that block.
    fn ahead_bytes(&self) -> u64 {
        if self.sweep {
            AHEAD_BYTES
        } else if self.streak < AHEAD_AFTER {
            0
        } else {
            let doublings = (self.streak - AHEAD_AFTER).min(4);
            (AHEAD_FIRST_BYTES << doublings).min(AHEAD_BYTES)
        }
    }

    /// Takes the place of entry `index` of block `part` of section `section`.
    fn settle(&mut self, section: usize, part: usize, block: Arc<Block>, index: usize) {
        self.settled = true;
        self.place = block.parts(index).map(|parts| Place {
            section,
            part,
            block,
            index,
            parts,
        });
    }

    /// To the first entry of the first block from (`section`, `part`) on.
    fn enter_forward(&mut self, mut section: usize, mut part: usize) -> Result<()> {
        let Some(top) = self.top()? else { return Ok(()) };
        while let Some(head) = self.head(&top, section)? {
            if let Some(block) = self.block(&head, section, part)? {
                self.settle(section, part, block, 0);
                return Ok(());
            }
            (section, part) = (section + 1, 0);
        }
        Ok(())
    }

    /// To the last entry before block `part` of section `section`.
    fn enter_backward(&mut self, mut section: usize, mut part: usize) -> Result<()> {
        let Some(top) = self.top()? else { return Ok(()) };
        self.streak = 0;
        loop {
            if let Some(before) = part.checked_sub(1) {
                let Some(head) = self.head(&top, section)? else {
                    return Ok(());
                };
                if let Some(block) = self.block(&head, section, before)? {
                    let last = block.len() - 1;
                    self.settle(section, before, block, last);
                }
                return Ok(());
            }
            let Some(before) = section.checked_sub(1) else {
                return Ok(());
            };
            section = before;
            part = match self.head(&top, section)? {
                Some(head) => head.index.len(),
                None => 0,
            };
        }
    }

    fn find(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let Some(top) = self.top()? else { return Ok(()) };
        let mut section = match top.index.level() {
            Level::Blocks => 0,
            Level::Sections => top.index.find(key),
        };
        while let Some(head) = self.head(&top, section)? {
            let mut part = head.index.find(key);
            while let Some(block) = self.block(&head, section, part)? {
                let index = block.lower_bound(key, seqno);
                if index < block.len() {
                    self.settle(section, part, block, index);
                    return Ok(());
                }
                part += 1;
            }
            section += 1;
        }
        Ok(())
    }

    fn find_before(&mut self, key: &[u8]) -> Result<()> {
        let Some(top) = self.top()? else { return Ok(()) };
        let section = match top.index.level() {
            Level::Blocks => 0,
            Level::Sections => top.index.find(key),
        };
        if section >= Self::sections(&top) {
            return self.enter_backward(section, 0);
        }
        let Some(head) = self.head(&top, section)? else {
            return Ok(());
        };
        let part = head.index.find(key);
        if let Some(block) = self.block(&head, section, part)?
            && let Some(index) = block.lower_bound(key, SeqNo::MAX).checked_sub(1)
        {
            self.settle(section, part, block, index);
            return Ok(());
        }
        self.enter_backward(section, part)
    }

    /// Runs a move, which may look at the place it leaves; unless it settles on another one, and without an
    /// error, the cursor is unpositioned.
    fn moved(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.settled = false;
        let result = step(self);
        if result.is_err() || !self.settled {
            self.place = None;
            self.streak = 0;
        }
        result
    }

    /// To the first entry of the next key after that of entry `index` of the block.
    fn next_key_after(&mut self, index: usize) -> Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        if let Some((index, parts)) = place.block.next_key(index + 1) {
            place.block.expect(index + AHEAD);
            (place.index, place.parts) = (index, parts);
            return Ok(());
        }
        let (section, part, left) = (place.section, place.part, place.block.clone());
        self.leave_forward(section, part)?;
        // The versions may go on in the next block, and the one after it.
        let key = left.key(index);
        if self.entry().is_some_and(|entry| entry.key == key) && !planted!(KeyEndsWithBlock) {
            rare!(ManyVersionsSkipped);
            self.seek(key, SeqNo::ZERO)?;
            // The last of them, unless one has the smallest number of all.
            if self.entry().is_some_and(|entry| entry.key == key) && !planted!(ZeroTakenForNextKey) {
                rare!(ZeroSkipped);
                self.next()?;
            }
        }
        Ok(())
    }

    /// Over the end of the block.
    fn leave_forward(&mut self, section: usize, part: usize) -> Result<()> {
        self.streak = self.streak.saturating_add(1);
        self.holds = true;
        self.moved(|cursor| cursor.enter_forward(section, part + 1))
    }
}

impl Cursor for TableCursor {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.streak = 0;
        self.moved(|cursor| cursor.find(key, seqno))
    }

    fn seek_first(&mut self) -> Result<()> {
        self.streak = 0;
        self.moved(|cursor| cursor.enter_forward(0, 0))
    }

    fn seek_last(&mut self) -> Result<()> {
        self.moved(|cursor| match cursor.top()? {
            Some(top) => cursor.enter_backward(Self::sections(&top), 0),
            None => Ok(()),
        })
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.streak = 0;
        self.moved(|cursor| cursor.find_before(key))
    }

    fn next(&mut self) -> Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        if place.step(place.index + 1) {
            return Ok(());
        }
        let (section, part) = (place.section, place.part);
        self.leave_forward(section, part)
    }

    fn next_key(&mut self) -> Result<()> {
        match &self.place {
            Some(place) => self.next_key_after(place.index),
            None => Ok(()),
        }
    }

    fn prev(&mut self) -> Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        if let Some(before) = place.index.checked_sub(1) {
            place.step(before);
            return Ok(());
        }
        let (section, part) = (place.section, place.part);
        self.holds = true;
        self.moved(|cursor| cursor.enter_backward(section, part))
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.place.as_ref().map(|place| place.block.view(&place.parts))
    }

    fn owned(&self) -> Option<Entry> {
        self.place.as_ref().map(|place| place.block.owned(&place.parts))
    }

    fn is_newest(&self) -> bool {
        // Versions of the first entry's key may stand at the end of the block before.
        self.place.as_ref().is_some_and(|place| {
            let inside = place.index > 0 || planted!(NewestByBlock);
            inside && !place.block.same_key(place.index)
        })
    }

    fn stretch(&mut self, below: Option<&[u8]>, spare: &mut Option<Stretch>) -> Option<Stretch> {
        let place = self.place.as_ref()?;
        Stretch::new(&place.block, place.index, place.parts, below, spare)
    }

    fn leave(&mut self, stretch: &Stretch) -> Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        if stretch.is_done() {
            return self.next_key_after(stretch.at());
        }
        place.step(stretch.at());
        Ok(())
    }
}
