//! What one operation cost: counted on the thread that does it, while it is measured, and not otherwise.
//!
//! [`stats`](crate::Stats) says what all operations did since opening; this says why one of them took long. A get looks at a flag
//! of its thread once, and goes its way in a copy of the code that counts; writes look at it a few times, ranges at each block
//! and, where they are in no stretch of a block, at each entry.
//!
//! Invariants: nobody decides anything by these numbers; what other threads do (flush, compaction, the one who syncs for
//! several) is not in them, but for the time that was waited.

use std::cell::Cell;
use std::time::Duration;

/// What the operations inside [`measure`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct OpCounters {
    /// Memtables that a get asked.
    pub memtables: u64,
    /// Tables that a get asked; of each deeper level one.
    pub tables: u64,
    /// Filters that were asked.
    pub filters: u64,
    /// Filters that said no: their tables were not looked into.
    pub filters_denied: u64,
    /// Blocks that were looked into, in memory or not.
    pub blocks: u64,
    /// Blocks, indexes with their filters, and separated values that were not in memory and were read from files.
    pub pieces_read: u64,
    /// Their sealed bytes, with what was read ahead.
    pub bytes_read: u64,
    /// Bytes of tables and value files that were decrypted.
    pub bytes_decrypted: u64,
    /// Entries that ranges went past forwards, those that were handed out among them. Told when a range leaves a block, or
    /// is dropped.
    pub entries: u64,
    /// Of these, the ones not handed out: older versions, deletes, and what has ended. What a range delete hides is mostly
    /// skipped unread, and then not counted.
    pub hidden: u64,
    /// Times that a commit waited until its log was on stable storage.
    pub syncs: u64,
    /// How long.
    pub sync_wait: Duration,
    /// How long commits waited for the commit lock.
    pub lock_wait: Duration,
    /// How long they were slowed down or stopped because flush and compaction were behind.
    pub throttled: Duration,
}

impl OpCounters {
    fn add(&mut self, more: &OpCounters) {
        self.memtables += more.memtables;
        self.tables += more.tables;
        self.filters += more.filters;
        self.filters_denied += more.filters_denied;
        self.blocks += more.blocks;
        self.pieces_read += more.pieces_read;
        self.bytes_read += more.bytes_read;
        self.bytes_decrypted += more.bytes_decrypted;
        self.entries += more.entries;
        self.hidden += more.hidden;
        self.syncs += more.syncs;
        self.sync_wait += more.sync_wait;
        self.lock_wait += more.lock_wait;
        self.throttled += more.throttled;
    }
}

thread_local! {
    static MEASURING: Cell<bool> = const { Cell::new(false) };
    static COUNTED: Cell<Option<OpCounters>> = const { Cell::new(None) };
}

/// Does `work` and says what the operations of this thread in it cost.
///
/// - Cost: a copy of the counters for each thing counted, and two looks at the clock for each wait. Outside of it an operation pays
///   for a few looks at a flag.
/// - What `work` leaves to other threads is not counted. Measured inside of another measurement counts for both.
///
/// ```no_run
/// # use strongroom::{Engine, keys::KeyFile};
/// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
/// # let events = engine.tenant("acme")?.keyspace("events")?;
/// let (value, cost) = strongroom::measure(|| events.get("k"));
/// println!("{:?}: {} tables, {} bytes read", value?, cost.tables, cost.bytes_read);
/// # Ok::<(), strongroom::Error>(())
/// ```
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, OpCounters) {
    /// Goes back to what was before, also when `work` panics.
    struct Outer(Option<OpCounters>);
    impl Drop for Outer {
        fn drop(&mut self) {
            MEASURING.set(self.0.is_some());
            COUNTED.set(self.0);
        }
    }
    let mut outer = Outer(COUNTED.replace(Some(OpCounters::default())));
    MEASURING.set(true);
    let done = work();
    let counted = COUNTED.get().unwrap_or_default();
    if let Some(outer) = &mut outer.0 {
        outer.add(&counted);
    }
    (done, counted)
}

/// Whether this thread measures.
#[inline(always)]
pub(crate) fn is_measuring() -> bool {
    MEASURING.get()
}

/// Counts, if this thread measures.
#[inline(always)]
pub(crate) fn count(add: impl FnOnce(&mut OpCounters)) {
    if is_measuring() {
        counted(add);
    }
}

#[cold]
fn counted(add: impl FnOnce(&mut OpCounters)) {
    if let Some(mut counters) = COUNTED.get() {
        add(&mut counters);
        COUNTED.set(Some(counters));
    }
}

/// Does `work`, and counts how long it took by the clock `now`, if this thread measures.
#[inline]
pub(crate) fn timed<T>(
    now: impl Fn() -> Duration,
    add: impl FnOnce(&mut OpCounters, Duration),
    work: impl FnOnce() -> T,
) -> T {
    let from = is_measuring().then(&now);
    let done = work();
    if let Some(from) = from {
        counted(|counters| add(counters, now().saturating_sub(from)));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_is_what_happens_inside_and_for_every_measurement_around_it() {
        let one = || count(|counters| counters.tables += 1);
        one();
        let ((inner, ()), outer) = measure(|| {
            one();
            let ((), inner) = measure(one);
            (inner, one())
        });
        assert_eq!((inner.tables, outer.tables), (1, 3));
        one();
        assert_eq!(measure(|| ()).1, OpCounters::default());
        assert!(!is_measuring());
    }

    #[test]
    fn a_panic_ends_the_measurement_and_other_threads_are_not_in_it() {
        let panicked = std::panic::catch_unwind(|| measure(|| panic!("as asked")));
        assert!(panicked.is_err() && !is_measuring());
        let ((), counted) = measure(|| {
            std::thread::scope(|scope| drop(scope.spawn(|| count(|counters| counters.tables += 1)).join()));
        });
        assert_eq!(counted, OpCounters::default());
    }
}
