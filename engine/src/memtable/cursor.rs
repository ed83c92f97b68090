//! A cursor over one tenant in a memtable.
//!
//! It holds the indexes of some consecutive items, one leaf's at most, and fetches the next ones when it
//! steps over an end: forwards by the leaf's link, backwards by a search.
//!
//! Items lie in memory in the order they came, so that each is two or three lines of memory that nobody has near. Who
//! steps forwards has the keys and values of the next [`AHEAD`] items fetched together, and the items that come then: their lines
//! come side by side, where it would wait for one after the other.
//!
//! Invariant: `run` holds consecutive items as they were when it was fetched. Entries that came since
//! are missed inside it, which is what the memtable's promise allows.

use std::sync::Arc;

use super::Memtable;
use super::items::{Item, Place};
use super::tree::Run;
use crate::error::Result;
use crate::hooks::rare;
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::types::{SeqNo, TenantId};

/// Items whose keys and values are fetched together.
const AHEAD: usize = 8;

pub(super) struct MemtableCursor {
    memtable: Arc<Memtable>,
    tenant: TenantId,
    run: Run,
    /// The place in `run`; means nothing without an item.
    at: usize,
    item: Option<u32>,
    /// Up to where of `run` they were.
    seen: usize,
}

impl MemtableCursor {
    pub(super) fn new(memtable: Arc<Memtable>, tenant: TenantId) -> MemtableCursor {
        MemtableCursor {
            memtable,
            tenant,
            run: Run::default(),
            at: 0,
            item: None,
            seen: 0,
        }
    }

    /// Takes the entry at `at` of the run, if it is the tenant's.
    fn settle(&mut self, at: usize) {
        self.at = at;
        let ours = |index: &u32| {
            let item = self.memtable.item(*index);
            item.is_some_and(|item| item.tenant == self.tenant)
        };
        self.item = self.run.get(at).filter(ours);
    }

    fn item(&self) -> Option<&Item> {
        self.memtable.item(self.item?)
    }

    /// To the entry at `at` of the run, a step from where it was.
    fn step_to(&mut self, at: usize) {
        if at >= self.seen {
            self.seen = at + AHEAD;
            self.memtable
                .items
                .prefetch(self.run.between(at, AHEAD), self.run.between(at + AHEAD, AHEAD));
        }
        self.settle(at);
    }

    fn enter_forward(&mut self, run: Option<Run>) {
        self.run = run.unwrap_or_default();
        self.seen = 0;
        self.settle(0);
    }

    /// To the first entry of the leaf after the run.
    fn step_over(&mut self) {
        self.run = self.memtable.after(&self.run).unwrap_or_default();
        self.seen = 0;
        self.step_to(0);
    }

    fn enter_backward(&mut self, found: Option<(Run, usize)>) {
        match found {
            Some((run, at)) => {
                (self.run, self.seen) = (run, 0);
                self.settle(at);
            }
            None => self.item = None,
        }
    }
}

impl Cursor for MemtableCursor {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let run = self.memtable.from(&Place::new(self.tenant, key, seqno));
        self.enter_forward(run);
        Ok(())
    }

    fn seek_first(&mut self) -> Result<()> {
        self.seek(&[], SeqNo::MAX)
    }

    fn seek_last(&mut self) -> Result<()> {
        let after = self.tenant.0.checked_add(1).map(TenantId);
        let place = after.map(|after| Place::new(after, &[], SeqNo::MAX));
        self.enter_backward(self.memtable.before(place.as_ref()));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let place = Place::new(self.tenant, key, SeqNo::MAX);
        self.enter_backward(self.memtable.before(Some(&place)));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        if self.item.is_none() {
            return Ok(());
        }
        if self.at + 1 < self.run.len {
            self.step_to(self.at + 1);
        } else {
            self.step_over();
        }
        Ok(())
    }

    fn next_key(&mut self) -> Result<()> {
        let Some(left) = self.item else { return Ok(()) };
        let after = self.run.next_key(self.at);
        if after < self.run.len {
            self.step_to(after);
            return Ok(());
        }
        self.step_over();
        let memtable = self.memtable.clone();
        let Some(left) = memtable.item(left).map(Item::key) else {
            return Ok(());
        };
        if self.item().is_none_or(|item| item.key() != left) {
            return Ok(());
        }
        rare!(ManyVersionsSkipped);
        match self.run.next_key(0) {
            after if after < self.run.len => self.settle(after),
            _ => self.seek(left, SeqNo::ZERO)?,
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let Some(item) = self.item() else { return Ok(()) };
        if let Some(before) = self.at.checked_sub(1) {
            self.settle(before);
        } else {
            let place = Place::new(self.tenant, item.key(), item.seqno);
            let found = self.memtable.before(Some(&place));
            self.enter_backward(found);
        }
        Ok(())
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.item().map(Item::view)
    }

    fn owned(&self) -> Option<Entry> {
        self.item().map(Item::entry)
    }

    fn is_newest(&self) -> bool {
        // Versions of the first item's key may stand in the leaf before.
        self.item.is_some() && self.at > 0 && !self.run.is_repeated(self.at)
    }
}
