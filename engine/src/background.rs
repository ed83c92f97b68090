//! Flush and compaction jobs: which one next, and who runs it.
//!
//! A job is one call of `step`: the engine's thread calls it in production, a caller or a simulator
//! with [`Background::Manual`]. Only one runs at a time; a compaction may have threads of its own beside the one that steps.
//!
//! Invariants: the log is durable up to what a flushed table holds before the table counts; WAL is
//! given up only after the edit that makes it unnecessary is durable.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::catalog;
use crate::compaction::picker::{Edges, Shape};
use crate::compaction::survey::VersionEdges;
use crate::compaction::{self, DroppedKeyspace, Limits, Plan, Survey, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::NEVER;
use crate::flush;
use crate::hooks::{planted, rare};
use crate::inner::{Background, CommitState, Inner, Mode};
use crate::options;
use crate::settings::Known;
use crate::stats::JobCounters;
use crate::types::{Epoch, SeqNo};
use crate::version::{Edit, Version, table_path, tables_dir};

/// How long the thread waits before it tries a failed job again: a full disk may have got room.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the thread sleeps at most: what has expired makes no noise.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The part of a memtable that is flushed, at least, to spare ranges the merging: 1 / 8. Less makes small tables.
const WORTH_A_TABLE: usize = 8;

/// What a job did.
#[derive(Clone, Copy)]
pub(crate) struct Done {
    /// Bytes of tables it read, values apart left out.
    pub bytes_read: u64,
    /// Bytes of tables and value files it wrote.
    pub bytes_written: u64,
    /// Bytes of the memtable that it made a table of; 0 for a compaction.
    pub memory: u64,
    /// What it took from level 0, in bytes of memtables.
    pub level0: u64,
}

impl Done {
    /// Tables that only change their level are neither read nor written.
    fn of(edit: &Edit, version: &Version, memtable_bytes: usize) -> Done {
        let from_level0 = edit.removed.iter().filter(|(level, _)| *level == 0).count() as u64;
        let stays = |number: u64| edit.added.iter().any(|(_, meta)| meta.number == number);
        let was_there = |number: u64| edit.removed.iter().any(|(_, removed)| *removed == number);
        let inputs = version.tables().map(|(_, table)| table.meta());
        let added = edit.added.iter().map(|(_, meta)| meta);
        Done {
            bytes_read: inputs
                .filter(|meta| was_there(meta.number) && !stays(meta.number))
                .map(|meta| meta.bytes)
                .sum(),
            bytes_written: added
                .filter(|meta| !was_there(meta.number))
                .map(|meta| meta.bytes)
                .chain(edit.values.iter().map(|meta| meta.bytes))
                .sum(),
            memory: 0,
            level0: from_level0.saturating_mul(memtable_bytes as u64),
        }
    }
}

impl Inner {
    /// One job; false when there is none.
    pub fn step(&self) -> Result<bool> {
        // On a full disk it fails, and what follows makes room.
        let begun = self.begin_log_anew();
        self.flush_for_ranges();
        let mut survey = self.jobs.lock();
        // Under `jobs`: once the directory is released, nothing writes to it any more.
        if self.background.state.lock().stop {
            return Ok(false);
        }
        let flushed = self.flush_one();
        let full = flushed
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NoSpace);
        if !full && flushed.as_ref().map_or(true, |flushed| *flushed) {
            return flushed;
        }
        // Also on a disk that has no room for the flush: what was deleted takes next to none to be given up.
        if full {
            self.give_back();
        }
        if self.compact_one(&mut survey)? {
            return Ok(true);
        }
        flushed?;
        begun?;
        // What a pin kept may be free by now.
        if self.purge_wal()? > 0 {
            return Ok(true);
        }
        self.view().range_cost.look_later();
        // A key provider that failed to destroy a root is asked again.
        Ok(self.keystore.destruction_pending() && self.keystore.destroy_superseded()?.is_some())
    }

    /// When values in the log expired longer than the grace ago: hands the memtable over to the flush and, on a
    /// primary, goes on in another segment, so that what the log holds of them can be given up. A standby's segments
    /// end where its primary's do. Before `jobs` is taken: a close holds `commit` and waits for it.
    fn begin_log_anew(&self) -> Result<()> {
        let grace = u64::try_from(self.online.options().expiry_grace.as_millis()).unwrap_or(u64::MAX);
        let first = self.log_expires.load(Ordering::Acquire);
        if first == NEVER || first.saturating_add(grace) > self.times.now() || planted!(ExpiredLogKept) {
            return Ok(());
        }
        let mut commit = self.commit.lock();
        if commit.mode == Mode::Closed {
            return Ok(());
        }
        let before = commit.tail.end;
        self.leave_log_behind(&mut commit)?;
        if commit.tail.end > before {
            rare!(LogBegunAnew);
        }
        self.log_expires.store(NEVER, Ordering::Release);
        Ok(())
    }

    /// When ranges paid for the memtable as much as its flush costs, and it is worth a table: hands it over. Before
    /// `jobs` is taken, as above.
    fn flush_for_ranges(&self) {
        let due = || {
            let view = self.view();
            let bytes = view.active.bytes();
            let worth = bytes >= self.options.memtable_bytes / WORTH_A_TABLE;
            // While one waits, for a full disk perhaps, small ones would take the room that writers have.
            let none_waits = view.immutables.is_empty();
            worth
                && none_waits
                && view
                    .range_cost
                    .pays_for_flush(bytes as u64, &view.version, &self.options)
        };
        if !due() {
            return;
        }
        let commit = self.commit.lock();
        // Others may have rotated it meanwhile.
        if commit.mode != Mode::Closed && due() {
            rare!(MemtablePaidForByRanges);
            let (end, seqno) = commit.inserted_to();
            self.rotate_memtable(end, seqno, true);
        }
    }

    /// Hands the memtable over to the flush and, where this node writes the log, goes on in another segment: once
    /// that memtable is in tables, nothing before that segment is needed here.
    fn leave_log_behind(&self, commit: &mut CommitState) -> Result<()> {
        let writes = matches!(commit.mode, Mode::Primary | Mode::AwaitingAcceptance);
        if writes && commit.tail.holds_records() {
            self.wal.start_segment(&mut commit.tail)?;
        }
        let (end, seqno) = commit.inserted_to();
        let rotated = self.rotate_memtable(end, seqno, true);
        if !rotated && self.mem.read().immutables.is_empty() && self.versions.state().flushed < end {
            // All that was in memory is in tables: nothing is left to replay.
            self.wal.sync_to(end)?;
            self.versions.log_and_apply(Edit {
                flushed: Some(end),
                tenants: self.tenants_given_out(),
                ..Edit::default()
            })?;
        }
        Ok(())
    }

    /// What a job wrote for which there was no room is removed. A file system may give that room to others only once the
    /// removal is durable.
    fn give_back(&self) {
        rare!(CompactionAfterFullFlush);
        // If it fails, what comes next finds no room, as before.
        let _ = self.io.vfs.sync_dir(&tables_dir(&self.dir));
    }

    /// Flushes the oldest immutable memtable, if any. Under `jobs`.
    fn flush_one(&self) -> Result<bool> {
        self.counted(&self.counters.flushes, || self.flush_oldest())
    }

    /// Runs a job and counts what came of it; false when there was none.
    fn counted(&self, counters: &JobCounters, job: impl FnOnce() -> Result<Option<Done>>) -> Result<bool> {
        let from = self.io.clock.monotonic();
        let outcome = job();
        let time = self.io.clock.monotonic().saturating_sub(from);
        match outcome {
            Ok(None) => Ok(false),
            Ok(Some(done)) => {
                counters.ended(Some(done), time);
                self.throttle.learn(&done, time);
                Ok(true)
            }
            Err(e) => {
                counters.ended(None, time);
                Err(e)
            }
        }
    }

    fn flush_oldest(&self) -> Result<Option<Done>> {
        let Some(oldest) = self.mem.read().immutables.front().cloned() else {
            return Ok(None);
        };
        let settings = self.settings.known();
        // Of a retention that was set later than what the memtable holds the log is not durable yet.
        let relied_on = match settings.newest > oldest.seqno && !planted!(RetentionNotSynced) {
            true => self.wal.written().max(oldest.end),
            false => oldest.end,
        };
        if !planted!(FlushAheadOfLog) {
            self.wal.sync_to(relied_on)?;
        }
        let state = self.versions.state();
        let versions = self.live_versions();
        let work = Work {
            // Compaction drops what deleted keyspaces left; asking here would cost a read for each.
            dropped: &|_, _| Ok(None),
            cancelled: &|| false,
            next_number: &|| self.versions.next_number(),
            ..self.work(&versions, state.highest_epoch, settings)
        };
        let flushed = flush::flush(
            &work,
            &oldest.memtable,
            oldest.end.max(state.flushed),
            oldest.seqno,
        );
        if flushed.is_err() {
            rare!(FlushFailed);
        }
        let mut edit = flushed?;
        edit.tenants = self.tenants_given_out();
        if relied_on > oldest.end {
            edit.reach = Some(relied_on);
        }
        if planted!(LogPurgedBeforeEdit) {
            self.wal.purge(oldest.end)?;
        }
        let done = Done {
            memory: oldest.memtable.bytes() as u64,
            ..Done::of(&edit, &Version::default(), 0)
        };
        let before = self.versions.current();
        self.versions.log_and_apply(edit)?;
        self.mem.write().immutables.pop_front();
        self.publish_view();
        self.view().range_cost.spend_on_flush(done.memory, &before);
        self.accounts.follow(&before, &self.versions.current());
        self.purge_wal()?;
        Ok(Some(done))
    }

    /// For an edit after which log may go that knew of tenants (`Engine::create_tenants`): from then on the manifest
    /// does. Nothing on a standby.
    pub fn tenants_given_out(&self) -> Option<u64> {
        let known = self.versions.state().tenants > 0 && !planted!(FlushForgetsTenants);
        known.then(|| self.keystore.next_tenant())
    }

    /// Gives up WAL that neither recovery nor a pin needs; how many segments.
    pub fn purge_wal(&self) -> Result<u64> {
        let flushed = self.versions.state().flushed;
        let keep_bytes = self.online.options().wal_keep_bytes;
        self.pins
            .remove_before(flushed, self.wal.durable(), keep_bytes, |keep| {
                self.wal.purge(keep)
            })
    }

    /// The most urgent compaction, if any. Under `jobs`.
    fn compact_one(&self, survey: &mut Survey) -> Result<bool> {
        self.compact_with(survey, |shape, edges, limits| {
            compaction::pick(shape, edges, limits)
        })
    }

    fn compact_with(
        &self,
        survey: &mut Survey,
        pick: impl FnOnce(&Shape, &dyn Edges, &Limits) -> Result<Option<Plan>>,
    ) -> Result<bool> {
        self.counted(&self.counters.compactions, || self.compact_picked(survey, pick))
    }

    fn compact_picked(
        &self,
        survey: &mut Survey,
        pick: impl FnOnce(&Shape, &dyn Edges, &Limits) -> Result<Option<Plan>>,
    ) -> Result<Option<Done>> {
        let state = self.versions.state();
        let versions = self.live_versions();
        let view = self.view();
        let drops: Vec<DroppedKeyspace> = self
            .dropped
            .read()
            .iter()
            .map(|((tenant, keyspace), at)| DroppedKeyspace {
                tenant: *tenant,
                keyspace: *keyspace,
                at: *at,
            })
            .collect();
        let settings = self.settings.known();
        // A deletion of a keyspace, or a retention, that a crash could still take back must not cost its data.
        let relied_on = self.wal.written();
        if !planted!(KeyspaceDropNotSynced) && !planted!(RetentionNotSynced) {
            self.wal.sync_to(relied_on)?;
        }
        let version = self.versions.current();
        // Counts deletions of tenants: each takes a live one away, creations add to both.
        let destructions = self
            .keystore
            .next_tenant()
            .saturating_sub(self.keystore.len() as u64);
        let now = self.settled_time();
        let mut shape = survey.shape(
            &version,
            &self.keys,
            destructions,
            &drops,
            (&versions, now),
            settings,
        )?;
        shape.ranges_paid = view.range_cost.paid();
        let first = shape
            .levels
            .iter()
            .flatten()
            .filter_map(|table| table.expires)
            .chain(shape.values.iter().filter_map(|file| file.expires))
            .min();
        self.tables_expire
            .store(first.unwrap_or(NEVER), Ordering::Release);
        let edges = VersionEdges::new(&version);
        let Some(plan) = pick(&shape, &edges, &Limits::from(&*self.online.options()))? else {
            return Ok(None);
        };
        let flush_failed = Cell::new(false);
        let work = Work {
            dropped: &|tenant, keyspace| catalog::dropped_at(&view, tenant, keyspace),
            cancelled: &|| {
                // Memtables do not wait for a long compaction. A flush that fails is tried again, and
                // reported, as the next job.
                if !flush_failed.get() {
                    flush_failed.set(self.flush_one().is_err());
                }
                let state = self.background.state.lock();
                state.closing || state.stop
            },
            next_number: &|| self.versions.next_number(),
            ..self.work(&versions, state.highest_epoch, settings)
        };
        let compacted = compaction::compact(&work, &version, &plan);
        if let Err(e) = &compacted {
            rare!(CompactionFailed);
            if e.kind() == ErrorKind::NoSpace {
                rare!(CompactionFoundDiskFull);
            }
        }
        let mut edit = compacted?;
        // Nor must damage to it pass for a torn tail: what was left out would be missed.
        edit.reach = Some(relied_on);
        if planted!(InputsRemovedBeforeEdit) {
            for (_, number) in &edit.removed {
                let _ = self.io.vfs.remove_file(&table_path(&self.dir, *number));
            }
        }
        let done = Done::of(&edit, &version, self.options.memtable_bytes);
        compaction::warm::follow(&work, &self.cache, &version, edit, |edit| {
            let before = self.versions.current();
            self.versions.log_and_apply(edit)?;
            self.publish_view();
            if done.level0 > 0 {
                self.view().range_cost.spend(u64::MAX);
            }
            self.accounts.follow(&before, &self.versions.current());
            Ok(())
        })?;
        Ok(Some(done))
    }

    /// Versions somebody may read at: live snapshots, and what is visible now. A reader takes its view
    /// first and the version it reads at second, so that version is at or above the last of these.
    fn live_versions(&self) -> Vec<SeqNo> {
        let snapshots = self.snapshots.lock();
        let mut versions: Vec<SeqNo> = snapshots.keys().copied().collect();
        if planted!(SnapshotsIgnored) {
            versions.clear();
        }
        let visible = self.visible();
        if versions.last() != Some(&visible) {
            versions.push(visible);
        }
        versions
    }

    fn work<'a>(&'a self, versions: &'a [SeqNo], epoch: Epoch, settings: Known<'a>) -> Work<'a> {
        Work {
            io: &self.io,
            db: &self.dir,
            options: &self.options,
            keys: &self.keys,
            epoch,
            snapshots: versions,
            now: self.settled_time(),
            settings,
            dropped: &|_, _| Ok(None),
            next_number: &|| 0,
            cancelled: &|| false,
        }
    }

    /// Empties the memtables into tables, and lets go of the log that they were kept for.
    pub fn flush(&self) -> Result<()> {
        {
            let mut commit = self.commit.lock();
            if commit.mode == Mode::Closed {
                return Err(crate::commit::closed());
            }
            if let Err(error) = self.leave_log_behind(&mut commit) {
                if error.kind() != ErrorKind::NoSpace {
                    return Err(error);
                }
                // No room for a segment: what is in memory can be flushed all the same, and the log stays.
                let (end, seqno) = commit.inserted_to();
                self.rotate_memtable(end, seqno, true);
            }
        }
        self.flush_immutables()?;
        self.purge_wal().map(|_| ())
    }

    pub fn flush_immutables(&self) -> Result<()> {
        let _jobs = self.jobs.lock();
        while self.flush_one()? {}
        Ok(())
    }

    /// Compacts until the tree has nothing left to do. Where the disk is too full for a flush, what is in tables: that may
    /// make the room.
    pub fn compact(&self) -> Result<()> {
        let flushed = self.flush();
        match &flushed {
            Err(error) if error.kind() == ErrorKind::NoSpace => self.give_back(),
            Err(_) => return flushed,
            Ok(()) => {}
        }
        let mut survey = self.jobs.lock();
        let before = self.versions.next_number();
        while self.compact_with(&mut survey, |s, e, l| {
            compaction::pick_everything(s, e, l, before)
        })? {}
        flushed
    }

    /// Stops the thread and waits for the job it is in.
    pub fn stop_background(&self) {
        self.background.state.lock().stop = true;
        self.background.changed.notify_all();
        drop(self.jobs.lock());
    }
}

/// Starts the engine's one thread. It ends when the engine is closed or dropped.
pub(crate) fn start(inner: &Arc<Inner>) -> Result<()> {
    if inner.options.background == options::Background::Manual {
        return Ok(());
    }
    let (weak, signal) = (Arc::downgrade(inner), inner.background.clone());
    let spawned = std::thread::Builder::new()
        .name("strongroom-jobs".into())
        .spawn(move || run(&weak, &signal));
    spawned
        .map(|_| ())
        .map_err(|e| Error::new(ErrorKind::Io, "starting the background thread failed").with_source(e))
}

fn run(weak: &Weak<Inner>, signal: &Background) {
    loop {
        let outcome = match weak.upgrade() {
            Some(inner) => inner.step(),
            None => return,
        };
        let mut state = signal.state.lock();
        if state.stop {
            return;
        }
        match outcome {
            Ok(true) => state.failed = None,
            Ok(false) => {
                state.failed = None;
                // Nobody wakes it for the time that passes.
                while !state.wake && !state.stop {
                    if signal.changed.wait_for(&mut state, LOOK_EVERY).timed_out() {
                        break;
                    }
                }
                state.wake = false;
            }
            Err(error) => {
                state.failed = Some(error);
                signal.changed.notify_all();
                signal.changed.wait_for(&mut state, RETRY_AFTER);
            }
        }
        if state.stop {
            return;
        }
        // Writers that wait look again.
        signal.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
