//! The engine's planted bugs. Each leaves out one rule where `planted!(Name)` stands.

crate::named_states! {
    /// A rule left out on purpose.
    pub enum Bug {
        // ---- write-ahead log
        /// commits at Local are acknowledged before the sync
        AcknowledgeBeforeSync,
        /// a new segment begins before the old one is durable
        RotateWithoutSync,
        /// the directory is not synced after a segment was created
        SegmentNameNotSynced,
        /// a failed sync is tried again, and its success believed
        FailedSyncRetried,
        /// what a full disk left of an append stays, and the next goes behind it
        TornAppendLeft,
        /// a primary goes on in the segment that it finds
        SegmentReused,
        /// versions that are in the log only are given out again
        SequenceReused,
        // ---- recovery
        /// the log is cut below what the manifest knows to be durable
        CutBelowReach,
        /// the log is cut below the durable watermark of a later record
        CutBelowWatermark,
        /// what was not known to be durable is synced, but not written again
        TailNotRewritten,
        // ---- flush and manifest
        /// a memtable becomes a table before its log is durable
        FlushAheadOfLog,
        /// log is removed before the edit that makes it unnecessary is durable
        LogPurgedBeforeEdit,
        /// the bytes of a new table are not synced
        TableNotSynced,
        /// the directory is not synced after tables were created
        TableNameNotSynced,
        /// an edit counts before it is durable
        EditNotSynced,
        /// a manifest takes edits after a failed sync
        ManifestFailureForgotten,
        /// the directory is not synced after CURRENT was replaced
        CurrentNameNotSynced,
        /// tables that were compacted go before the edit is durable
        InputsRemovedBeforeEdit,
        /// the bytes of a new value file are not synced
        ValuesNotSynced,
        // ---- keystore
        /// the bytes of a new base are not synced
        KeystoreBaseNotSynced,
        /// the directory is not synced after a base got its name
        KeystoreNameNotSynced,
        /// a new tenant counts before its keys are durable
        KeyLogNotSynced,
        /// the log does not hear of a new tenant
        TenantNotNoted,
        /// the manifest does not hear how many tenants there were when log is flushed
        FlushForgetsTenants,
        /// a deleted tenant's keys are carried over into the next base
        DeletedKeyKept,
        /// the old root's wrapping key is not destroyed
        OldRootKept,
        // ---- tree and reads
        /// what a memtable finds is not compared with what was asked for
        MemtableAnswerUnchecked,
        /// a memtable finds by its hash the first version of a key that came
        NewestItemStays,
        /// a memtable gives who asks at a snapshot the newest version of a key
        NewestItemForAll,
        /// a compaction drops a delete that hides something below
        CompactionDropsDeletes,
        /// flush and compaction drop versions that snapshots need
        SnapshotsIgnored,
        /// a keyspace's data is dropped before its deletion is durable
        KeyspaceDropNotSynced,
        /// a range skips a delete, but not what it hides
        DeleteSkippedAlone,
        /// a merge leaves a key in one source, and not in older ones that have it as well
        MergeLeavesKeyInOne,
        /// a merge going backwards takes for a key's only version what is that in one source
        NewestInItsSource,
        /// a range goes over a stretch of one source past a key that a newer one has as well
        StretchTakesEqualKeys,
        /// a range shows a key's older versions as well in a stretch
        StretchShowsOldVersions,
        /// a source stays where it was when a range has gone over a stretch of it
        StretchLeftBehind,
        /// a value shows at the very moment at which it expires
        ExpiryOneLate,
        /// a snapshot reads values that have expired
        ExpiredSeenBySnapshots,
        /// what has expired comes back when the machine's clock goes back
        ClockFollowedBack,
        /// a compaction drops an expired value and not what it hides
        ExpiredDroppedAlone,
        /// a transaction forgets when what it read expires
        ReadMomentsForgotten,
        /// tables are not picked for values that expired long ago
        ExpiredTablesForgotten,
        /// the log keeps values that expired long ago
        ExpiredLogKept,
        /// the retentions in tables are not read at opening
        RetentionForgotten,
        /// what was written before a keyspace had a retention stays for ever
        UndatedLivesOn,
        /// what a retention ended comes back under a longer one
        LongerRetentionUncovers,
        /// tables written before a retention was changed are not picked for what it ended
        RetentionTablesForgotten,
        /// flush and compaction go by a retention that is not durable yet
        RetentionNotSynced,
        /// which values of a keyspace go apart is not read from tables at opening
        SeparationForgotten,
        /// flush and compaction do not ask which values of a keyspace go apart
        SeparationIgnored,
        /// values of keyspaces with a retention go apart
        RuledValuesApart,
        /// value files are not emptied for what has ended in them
        ValueFilesForgotten,
        /// a value file goes with the first table that referred to it
        ValueFilesGoneEarly,
        /// value files are not emptied for their garbage
        ValueGarbageKept,
        /// what stands apart does not count for a quota
        ValuesNotCounted,
        /// quotas in tables are not read at opening
        QuotaForgotten,
        /// a tenant that has its quota writes on
        QuotaIgnored,
        /// a tenant that has its quota cannot delete either
        QuotaRefusesDeletes,
        /// a range delete undoes nothing of its own batch that came before it
        BatchOrderIgnored,
        /// range deletes in levels below 0 are left out by a get
        LevelDeletesIgnored,
        /// a scan backwards shows what a range delete hides
        BackwardUncovers,
        /// a source is left out where its own range delete is, with what came after that
        OwnStretchSkipped,
        /// what lies behind a table's range deletes is taken for undeleted to the level's end
        CoverEndsWithTable,
        /// a table's bounds leave out its range deletes
        SpanOfEntriesAlone,
        /// a range delete goes whole into each of the tables that are cut inside it
        RangeDeleteNotCut,
        /// a part of a compaction leaves out its first key
        PartSkipsFirstKey,
        /// a range delete goes whole into each of the parts of a compaction that it reaches into
        PartKeepsWholeRangeDeletes,
        /// a compaction counts though one of its parts failed
        PartFailureForgotten,
        /// a compaction drops range deletes that hide something below
        RangeDeleteDroppedEarly,
        /// flush and compaction drop what a range delete hides, though a snapshot sees it
        CoveredDroppedForSnapshots,
        /// an entry loses its version though a snapshot does not see it
        ZeroedUnderASnapshot,
        /// an entry loses its version though a range delete that is older stays over it
        ZeroedUnderARangeDelete,
        /// an entry loses its version though something older of its key may lie below
        ZeroedOverOlder,
        /// entries of the catalog lose their versions, which say when a keyspace was deleted or ruled
        ZeroedCatalog,
        /// an entry whose value stands apart, sealed for its version, loses that
        ZeroedApart,
        /// a step to the next key takes a version that was zeroed, and stands in the next block, for one
        ZeroTakenForNextKey,
        /// a step to the next key takes a version that goes on in the next block for one
        KeyEndsWithBlock,
        /// a point read that looks into a block at hand takes what goes on in the next for absent
        GuessEndsWithBlock,
        /// a look into a block that is not kept takes a key's newest version, not the one that is seen
        WalkTakesNewest,
        /// the first entry of a block counts as its key's newest version
        NewestByBlock,
        /// the block cache tells tables apart by nothing
        CacheKeyedByOffset,
        /// a block is compressed with the help of the one before
        CompressionCarriedOver,
        /// the length a compressed block states is not compared with what comes out
        PlainLengthUnchecked,
        /// a batch is committed whatever its conditions say
        ConditionsIgnored,
        /// values of many keys come in the order of the keys, not as they were asked for
        AnswersInKeyOrder,
        /// verifying a table reads its indexes and not its blocks
        VerifySkipsBlocks,
        /// verifying a table does not read the values that stand apart
        VerifySkipsValues,
        // ---- pacing
        /// writers are not slowed before they must stop
        PaceForgotten,
        /// writers are slowed without regard to who writes much
        PaceIgnoresTenants,
        /// what a tenant wrote ahead of its share is not counted
        PaceForgetsBatches,
        // ---- sealing
        /// the associated data leaves out where a piece stands
        OffsetNotBound,
        /// key commitments are not compared
        CommitmentNotChecked,
        /// nonces repeat
        NonceRepeats,
        /// a small piece's nonce does not depend on what is sealed
        NonceWithoutPlaintext,
        /// files share identity and salt
        SaltReused,
        // ---- copies
        /// a checkpoint leaves the value files out
        ValuesNotCopied,
        /// a checkpoint's names are not synced
        CheckpointNamesNotSynced,
        /// a base copy's bytes are not synced before it may be opened
        BaseCopyNotSynced,
        /// a restored database takes writes without being accepted
        RestoreServesAtOnce,
        // ---- standby
        /// received records need not continue the chain
        ChainNotChecked,
        /// a promoted node serves before its epoch is durable
        PromotionNotDurable,
        /// a fence is not recorded
        FenceNotDurable,
        /// a standby leaves out range deletes that it receives
        FollowerSkipsRangeDeletes,
        /// a standby leaves out settings that it receives, until it is opened anew
        FollowerSkipsSettings,
        /// a standby does not read the settings in its tables at opening
        StandbyForgetsSettings,
        /// a standby leaves out range deletes in the log that it finds at opening
        StandbyReplaysNoRangeDeletes,
        /// a standby drops what has ended by its own clock, whatever the log says next
        StandbyDropsByItsClock,
    }
}
