//! A source without what range deletes hide from who reads at a version.
//!
//! Where a newer source deletes a stretch, all of this one is hidden there and it is left in one seek, unread. Where
//! the source's own range deletes do, entries may be newer than they are: each is compared.
//!
//! Invariants: as in `read::cursor`, over the entries that are left. What is newer than the version that is read at
//! may be hidden or not: nobody sees it.

use std::sync::Arc;

use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::range_delete::Look;
use crate::read::cover::Cover;
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::types::SeqNo;

/// A cursor over one source.
pub(crate) struct Uncovered {
    source: Box<dyn Cursor>,
    own: Option<Arc<Cover>>,
    /// Of the sources that are newer.
    newer: Vec<Arc<Cover>>,
    at: SeqNo,
    /// The last looks: they hold for neighbours too.
    own_look: Option<Look>,
    newer_look: Option<Look>,
    /// A look failed; the source stands where nothing is known.
    lost: bool,
}

/// What to do with an entry.
enum Judged {
    Shown,
    /// Go over it.
    Hidden,
    /// Go over all of the stretch that the last look at newer sources found.
    Stretch,
}

impl Uncovered {
    /// `source` itself where nothing can hide anything of it.
    pub(crate) fn over(
        source: Box<dyn Cursor>,
        own: Option<Arc<Cover>>,
        newer: &[Arc<Cover>],
        at: SeqNo,
    ) -> Box<dyn Cursor> {
        if own.is_none() && newer.is_empty() {
            return source;
        }
        Box::new(Uncovered {
            source,
            own,
            newer: newer.to_vec(),
            at,
            own_look: None,
            newer_look: None,
            lost: false,
        })
    }

    fn forward(&mut self) -> Result<()> {
        loop {
            match self.judge()? {
                Judged::Shown => return Ok(()),
                Judged::Hidden => self.source.next_key()?,
                Judged::Stretch => match self.newer_look.as_ref().and_then(|look| look.stretch.as_ref()) {
                    Some((_, end)) => self.source.seek(end, SeqNo::MAX)?,
                    None => self.source.next_key()?,
                },
            }
        }
    }

    fn backward(&mut self) -> Result<()> {
        if planted!(BackwardUncovers) {
            return Ok(());
        }
        loop {
            match self.judge()? {
                Judged::Shown => return Ok(()),
                Judged::Hidden => self.source.prev()?,
                Judged::Stretch => match self.newer_look.as_ref().and_then(|look| look.stretch.as_ref()) {
                    Some((start, _)) => self.source.seek_before(start)?,
                    None => self.source.prev()?,
                },
            }
        }
    }

    /// Of the entry that the source stands on; shown if it stands on none.
    fn judge(&mut self) -> Result<Judged> {
        let Some(entry) = self.source.entry() else {
            return Ok(Judged::Shown);
        };
        let newest = look_newer(&self.newer, &mut self.newer_look, entry.key, self.at)?;
        if newest.is_some_and(|newest| newest > entry.seqno) {
            rare!(StretchSkipped);
            return Ok(Judged::Stretch);
        }
        let Some(own) = &self.own else {
            return Ok(Judged::Shown);
        };
        if !self
            .own_look
            .as_ref()
            .is_some_and(|look| look.holds_for(entry.key))
        {
            self.own_look = Some(own.look(entry.key, self.at)?);
        }
        let newest = self.own_look.as_ref().and_then(|look| look.newest);
        Ok(match newest {
            Some(newest) if newest > entry.seqno => {
                rare!(HiddenByItsOwnSource);
                match planted!(OwnStretchSkipped) {
                    true => {
                        self.newer_look.clone_from(&self.own_look);
                        Judged::Stretch
                    }
                    false => Judged::Hidden,
                }
            }
            _ => Judged::Shown,
        })
    }

    /// Runs a move of the source and goes on to what is shown; an error leaves the cursor unpositioned.
    fn moved(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<()>,
        on: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let result = step(self).and_then(|()| on(self));
        self.lost = result.is_err();
        result
    }
}

/// The newest delete of `key` in the newer sources. `known` is what was found last.
fn look_newer(
    newer: &[Arc<Cover>],
    known: &mut Option<Look>,
    key: &[u8],
    at: SeqNo,
) -> Result<Option<SeqNo>> {
    if newer.is_empty() {
        return Ok(None);
    }
    if let Some(look) = known.as_ref().filter(|look| look.holds_for(key)) {
        return Ok(look.newest);
    }
    let mut all = Look::default();
    for cover in newer {
        all = all.and(cover.look(key, at)?);
    }
    let newest = all.newest;
    *known = Some(all);
    Ok(newest)
}

impl Cursor for Uncovered {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.moved(
            |cursor| {
                let newest = look_newer(&cursor.newer, &mut cursor.newer_look, key, cursor.at)?;
                let stretch = cursor.newer_look.as_ref().and_then(|look| look.stretch.as_ref());
                match (newest, stretch) {
                    // Not even a block is read of what is hidden.
                    (Some(_), Some((_, end))) => cursor.source.seek(end, SeqNo::MAX),
                    _ => cursor.source.seek(key, seqno),
                }
            },
            Uncovered::forward,
        )
    }

    fn seek_first(&mut self) -> Result<()> {
        self.moved(|cursor| cursor.source.seek_first(), Uncovered::forward)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.moved(|cursor| cursor.source.seek_last(), Uncovered::backward)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.moved(|cursor| cursor.source.seek_before(key), Uncovered::backward)
    }

    fn next(&mut self) -> Result<()> {
        if self.lost {
            return Ok(());
        }
        self.moved(|cursor| cursor.source.next(), Uncovered::forward)
    }

    fn next_key(&mut self) -> Result<()> {
        if self.lost {
            return Ok(());
        }
        self.moved(|cursor| cursor.source.next_key(), Uncovered::forward)
    }

    fn prev(&mut self) -> Result<()> {
        if self.lost {
            return Ok(());
        }
        self.moved(|cursor| cursor.source.prev(), Uncovered::backward)
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        if self.lost { None } else { self.source.entry() }
    }

    fn owned(&self) -> Option<Entry> {
        if self.lost { None } else { self.source.owned() }
    }

    fn is_newest(&self) -> bool {
        !self.lost && self.source.is_newest()
    }
}

#[cfg(test)]
mod tests;
