//! The engine's rare states. Each is visited by `rare!(Name)` where it happens.

crate::named_states! {
    /// A state that ordinary work seldom reaches.
    pub enum Rare {
        // ---- recovery
        /// a torn tail was cut at opening
        TornTailCut,
        /// the room behind the last record was cut at opening
        RoomCut,
        /// a segment with a torn header was removed at opening
        TornHeaderRemoved,
        /// a segment that was given up came back, behind a gap, and was removed at opening
        StaleSegmentRemoved,
        /// records of more than one segment were replayed
        ReplayedAcrossSegments,
        /// the first record of a segment was torn
        CutAtSegmentStart,
        /// damage that was no torn tail kept the database closed
        DamageRefused,
        /// a log that ends before what the manifest knows to be durable kept the database closed
        LogEndsBeforeReach,
        /// a segment that is needed was missing
        SegmentMissing,
        /// a torn tail that was cut came back behind the next segment's start
        BytesBehindNextSegmentIgnored,
        /// the segment that holds the flushed position was torn at its creation
        BeganBeforeTornSegment,
        /// bytes that only the page cache may have had were written again at opening
        TailWrittenAgain,
        /// a memtable was full during replay
        FlushedDuringReplay,
        /// records of a destroyed tenant were skipped
        DestroyedTenantSkipped,
        // ---- opening
        /// the creation of a database was interrupted and begun again
        CreationBegunAgain,
        /// a directory that is half a copy was refused
        UnfinishedCopyRefused,
        /// a copy was interrupted and begun again
        CopyBegunAgain,
        /// a second engine was refused the directory
        SecondOpenerRefused,
        /// a restored or fenced database was opened
        OpenedFenced,
        /// a keystore older than the tables was refused
        OlderKeystoreRefused,
        /// a directory with files of a database and without CURRENT was refused
        CurrentMissing,
        // ---- write-ahead log
        /// a full segment was followed by another
        SegmentRotated,
        /// what a full disk left of an append was taken back only later
        TornAppendTakenBack,
        /// a stretch of the log was mapped, for writes that no sync follows
        LogMapped,
        /// an append found the disk full
        AppendFoundDiskFull,
        /// a failed write stopped the log
        LogStoppedByWrite,
        /// a failed sync stopped the log
        LogStoppedBySync,
        /// the sync of a new segment failed and stopped the log
        LogStoppedByNewSegment,
        /// an edit of the history whose outcome is unknown stopped the log
        LogStoppedByManifest,
        /// a reign without a byte was forgotten where another one went on
        EmptyReignForgotten,
        /// a segment that an earlier attempt left was replaced
        SegmentLeftOver,
        /// the header of a new segment could not be written
        SegmentHeaderTakenBack,
        /// there was no space for room ahead of the log's end
        NoRoomAhead,
        /// room that records did not use was taken back
        RoomTakenBack,
        /// log was kept for a checkpoint or a standby only
        PinKeptLog,
        /// a writer was held up until flush and compaction caught up
        WriterDidBackgroundWork,
        // ---- flush and compaction
        /// a flush had nothing to keep
        FlushedNothing,
        /// a flush left out a destroyed tenant
        FlushLeftTenantOut,
        /// a flush failed and its memtable stayed
        FlushFailed,
        /// a disk that had no room for a flush was looked over for what could be given up
        CompactionAfterFullFlush,
        /// a compaction failed
        CompactionFailed,
        /// a compaction found the disk full
        CompactionFoundDiskFull,
        /// tables that were complete were removed because their job failed
        FinishedTablesRemoved,
        /// blocks of a new table came into the cache, since the tables before it had theirs there
        CacheCarriedOver,
        /// the cache let go of pieces of tables that were replaced
        CacheLetGoOfReplaced,
        /// a table was cut between tenants
        CutBetweenTenants,
        /// a table was cut inside a tenant
        CutInsideTenant,
        /// a delete with nothing below it was dropped
        DeleteDropped,
        /// a delete that may hide something below was kept
        DeleteKept,
        /// an entry of a deleted keyspace was dropped
        DroppedKeyspaceErased,
        /// an older version was kept for a snapshot
        VersionKeptForSnapshot,
        /// values went where their keyspace has them, and not where the option would
        SeparatedByKeyspace,
        /// a value that had expired left a delete
        ExpiredMadeDelete,
        /// an entry past its keyspace's retention left a delete
        DatedMadeDelete,
        /// the same of one that was written before there was a retention
        UndatedMadeDelete,
        /// tables were compacted for values that had expired
        ExpiredWrittenOut,
        /// another segment was begun so that expired values leave the log
        LogBegunAnew,
        /// an entry that a range delete hides was dropped
        CoveredEntryDropped,
        /// a range delete that hides nothing any more was dropped
        RangeDeleteDropped,
        /// a range delete was cut where a table was
        RangeDeleteCut,
        /// a put was written without its version, which nobody can tell from any before it
        SeqNoZeroed,
        /// a put kept its version for a range delete that stayed over it
        SeqNoKeptForRangeDelete,
        /// a step over the versions of a key, into another block, met one that was zeroed
        ZeroSkipped,
        /// a compaction was carried out in parts
        CompactionInParts,
        /// a part of a compaction began or ended inside a tenant
        PartCutInsideTenant,
        /// a range delete was cut where a part of a compaction began or ended
        RangeDeleteCutAtPart,
        /// a part of a compaction failed, and those that were complete were removed
        PartFailed,
        /// a table was cut between range deletes, for there were many
        CutBetweenRangeDeletes,
        /// tables of destroyed tenants alone were removed unread
        DeadTablesErased,
        /// a table went down a level as it is
        TableMovedDown,
        /// all of level 0 went down as it is
        Level0Moved,
        /// level 0 went down because ranges had paid for it
        Level0PaidForByRanges,
        /// a memtable was handed over because ranges had paid for it
        MemtablePaidForByRanges,
        /// a level was over its size
        LevelOverSize,
        /// a table of mostly deletes was compacted for that
        MostlyDeletesWrittenAnew,
        /// a table was written anew without a destroyed tenant
        DestroyedTenantWrittenOut,
        /// a block was compressed
        BlockCompressed,
        /// a block was stored as it is, because compressing it saves too little
        BlockNotWorthCompressing,
        /// a value went into a value file
        ValueSeparated,
        /// a value went from one value file into another
        ValueMoved,
        /// a value that stood apart went back into a table
        ValueTakenBack,
        /// a value file was full and another one begun
        ValueFileCut,
        /// tables were written anew to empty a value file
        ValueFileEmptied,
        /// a value file that no table needs was removed
        ValueFileGone,
        // ---- manifest
        /// a torn edit was cut off the manifest at opening
        ManifestEditTorn,
        /// a damaged manifest was refused
        ManifestRefused,
        /// an edit found the disk full
        ManifestFull,
        /// a manifest that a full disk had ended was replaced
        ManifestBegunAnew,
        /// a failed write or sync of the manifest stopped it
        ManifestStopped,
        /// a manifest that differs from what was closed was refused
        ClosedManifestRefused,
        /// an edit failed and its new tables were given up
        NewTablesVoid,
        /// a file that nothing names was removed at opening
        OrphanSwept,
        // ---- keystore
        /// a used keystore log was folded into a new base at opening
        KeystoreFolded,
        /// a keystore replacement was found unfinished at opening
        KeystoreUnfinished,
        /// the last frame of a keystore log was torn
        KeystoreFrameTorn,
        /// what an interrupted keystore replacement left was swept
        AbandonedBaseSwept,
        /// a deletion or a fold used the room set aside for it
        ReserveUsed,
        /// there was no room to set aside
        ReserveNotMade,
        /// a write to the keystore's log failed and ended it
        KeystoreAppendFailed,
        /// a failed replacement stopped the keystore
        KeystoreStopped,
        /// a replacement failed and left all as it was
        ReplacementTakenBack,
        /// a full disk postponed the fold at opening
        FoldPostponed,
        // ---- reads
        /// a value was read from a value file
        SeparatedValueRead,
        /// a filter spared a table
        FilterSaidNo,
        /// a point read that expected its key looked into a block that has another
        GuessErred,
        /// a filter let a key through that the table does not have
        FilterErred,
        /// versions of a key went on in the next block
        VersionsGoOnInNextBlock,
        /// a block was looked into once and not kept
        BlockWalkedThrough,
        /// a block that was missed before got a place in a full cache
        BlockMissedTwice,
        /// a piece was too large for the cache
        PieceTooLargeForCache,
        /// a scan sought past the many versions of a key
        ManyVersionsSkipped,
        /// a merge came to where keys begin otherwise than those whose digits it compared
        DigitsTakenAnew,
        /// a stretch was cut, at the next key of another source or where the range ends
        StretchCut,
        /// a stretch had versions that are newer than what was read at
        NewerInStretch,
        /// a key of a memtable found no place among the newest items
        NewestItemHasNoSlot,
        /// a get went down the tree of a memtable whose newest item was another key's, or newer than the reader
        NewestItemNotAsked,
        /// a read was answered by a full memtable
        ReadFromImmutable,
        /// an operation was undone by a later one of its batch
        UndoneInItsBatch,
        /// a get was answered by a range delete
        ReadFromRangeDelete,
        /// a stretch of a source was left out for a range delete in a newer one
        StretchSkipped,
        /// an entry was hidden by a range delete of its own source
        HiddenByItsOwnSource,
        /// an expired value was met by a read
        ExpiredNotShown,
        /// an entry past its keyspace's retention was met by a read
        DatedNotShown,
        /// the same of one that was written before there was a retention
        UndatedNotShown,
        /// an entry that an earlier retention had ended was met under a longer one
        EndedByRetentionBefore,
        /// the machine's clock went back
        ClockWentBack,
        /// what a transaction had read expired before its commit
        ReadExpiredBeforeCommit,
        /// the retention of what a transaction had read was changed before its commit
        RetentionChangedBeforeCommit,
        /// a retention was made longer and what the one before had ended is remembered
        RetentionBeforeKept,
        /// settings of a tenant went with it
        SettingsOfDeletedTenant,
        /// a commit was refused for its tenant's quota
        QuotaReached,
        /// a batch's condition did not hold
        ConditionFailed,
        /// a transaction was begun again after a conflict
        TransactionBegunAgain,
        // ---- copies
        /// a checkpoint synced what was buffered
        CheckpointSyncedLog,
        /// a checkpoint copied where the file system makes no links
        CopiedWhereLinksFail,
    }
}
