//! Deleting ranges: one operation, however much it deletes.

use std::ops::{Bound, RangeBounds};

use super::{Batch, Keyspace};
use crate::commit::op_cost;
use crate::error::{Error, ErrorKind, Result};
use crate::options::KEY_BYTES_MAX;
use crate::range_delete::is_range;
use crate::types::Position;
use crate::wal::format::push_range_delete;

impl Keyspace {
    /// Removes every key of `range`, at one version; as durable as the engine's default when it returns. A keyspace is
    /// emptied by `delete_range::<&[u8]>(..)`.
    ///
    /// - `range`: bounds as for [`range`](Keyspace::range). One in which no key can lie is refused.
    /// - Cost: that of one put, whatever lies in the range. What it hides leaves the disk as compaction comes by; until
    ///   then reads of these keys cost a little more.
    /// - Errors: as for [`put`](Keyspace::put).
    ///
    /// ```no_run
    /// # use strongroom::{Engine, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let events = engine.tenant("acme")?.keyspace("events")?;
    /// events.delete_range("u42/".."u42/~")?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Position> {
        self.batch().delete_range(self, range).commit()
    }

    /// The tree keys of a range that may be deleted: where it starts, and before which it ends.
    pub(crate) fn deletable<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<(Vec<u8>, Vec<u8>)> {
        for bound in [range.start_bound(), range.end_bound()] {
            if let Bound::Included(key) | Bound::Excluded(key) = bound
                && key.as_ref().len() > KEY_BYTES_MAX
            {
                let text = format!("a bound of a range has up to {KEY_BYTES_MAX} bytes, as a key");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
        }
        match self.bounds(range) {
            (start, Some(end)) if is_range(&start, &end) => Ok((start, end)),
            _ => Err(Error::new(ErrorKind::Invalid, "no key can lie in this range")),
        }
    }
}

impl Batch {
    /// Adds a delete of every key of `range`: see [`Keyspace::delete_range`]. What the batch put there before is
    /// deleted as well; what it puts there later stays.
    #[must_use]
    pub fn delete_range<K: AsRef<[u8]>>(mut self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Batch {
        if self.broken.is_some() {
            return self;
        }
        let added = keyspace.deletable(range).and_then(|(start, end)| {
            let cost = op_cost(&start, &end);
            self.check_room(keyspace, cost)?;
            push_range_delete(&start, &end, &mut self.plain);
            Ok(cost)
        });
        match added {
            Ok(cost) => {
                self.ops += 1;
                self.cost += cost;
            }
            Err(error) => self.broken = Some(error),
        }
        self
    }
}
