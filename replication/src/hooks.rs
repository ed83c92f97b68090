//! Hooks for the simulation of a pair: rare states that count their visits, and planted bugs that prove the
//! harness. By the macros of the engine's own `hooks`: nothing in production code.

pub(crate) use strongroom::{planted, rare};

#[cfg(any(test, feature = "sim"))]
strongroom::named_states! {
    /// A rule of replication left out on purpose.
    pub enum Bug {
        /// a standby may resume where its position fits, whatever its epoch and chain
        ResumeByPosition,
        /// a standby acknowledges bytes as durable when they arrive
        AcknowledgeOnArrival,
        /// a primary confirms what it sent, without an answer
        ConfirmOnSend,
        /// a record is sent before the keys it needs are acknowledged
        SendBeforeKeys,
        /// a node told of a newer epoch answers without recording it
        FenceNotRecorded,
        /// a standby takes key changes in whatever order they come
        KeysOutOfOrder,
        /// a primary goes on when a standby's Hello tells of a newer epoch
        YoungerHelloIgnored,
        /// a primary confirms what a standby received and has not synced
        ConfirmReceived,
        /// a standby asks a primary for the key changes since another one's version
        KeysSinceOtherPrimary,
        /// a node serves though its peer recorded a newer epoch
        ServeOverNewerPeer,
        /// a base copy is taken of a primary older than what is replaced
        CopyOfOlderPrimary,
    }
}

#[cfg(any(test, feature = "sim"))]
strongroom::named_states! {
    /// A state of a pair that ordinary work seldom reaches.
    pub enum Rare {
        // ---- Hello
        /// a Hello of a younger standby made a primary step down
        YoungerHello,
        /// a key change was not the next one
        KeysOutOfOrder,
        /// a standby ends beyond the primary's durable end
        StandbyAhead,
        /// a standby's last epoch is not in the primary's history there
        EpochNotInHistory,
        /// no record of the primary's ends where the standby's WAL does
        ChainDiffers,
        /// a standby needs WAL that is no longer kept
        TooFarBehind,
        // ---- stream, primary's side
        /// WAL waited for its keys to be acknowledged
        KeysHeldWalBack,
        /// an acknowledgement of a record of an older reign: progress that confirms nothing
        AckFromOlderReign,
        /// an acknowledgement was refused
        AckRefused,
        /// a full window stopped the sending
        WindowFull,
        /// no durable progress: the watchdog dropped the connection
        WatchdogStruck,
        /// retention overtook a stream
        RetentionOvertook,
        // ---- stream, standby's side
        /// WAL came out of order and was refused
        WalOutOfOrder,
        /// the primary fell silent
        PrimarySilent,
        /// the peer turned out to be an old primary
        OldPrimaryFound,
        /// the engine could not take the bytes sent
        Strike,
        /// too many of these at one position
        StruckOut,
        /// the engine found the histories to part
        DivergenceInStream,
        // ---- base copies
        /// a base copy broke the order of its messages
        BaseCopyMalformed,
        /// a base copy of an older primary was refused
        BaseCopyOfOldPrimary,
        /// a diverged WAL was kept aside
        WalQuarantined,
        // ---- roles
        /// a promotion whose epoch did not become durable was taken back
        PromotionTakenBack,
        /// a start found a promotion begun, and its epoch durable
        PromotionFoundDone,
        /// a start found a promotion begun, and its epoch missing
        PromotionFoundUndone,
        /// a promoted node told the old primary, and it recorded the epoch
        OldPrimaryTold,
        /// a promoted node learned that a newer primary exists
        ToldOfNewerInReply,
        /// a fenced node waits, because the peer does not serve
        FencedWaits,
        /// both nodes wait to be primary
        BothWait,
        /// a node waits because its peer has more
        PeerHasMore,
        /// a returning primary found its peer to be the primary
        ReturnedToFollow,
    }
}

#[cfg(any(test, feature = "sim"))]
strongroom::counted_and_planted!();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_planted_only_inside_and_a_visit_counts() {
        let planted = || Bug::SendBeforeKeys.is_planted();
        assert!(!planted());
        assert!(Bug::SendBeforeKeys.planted_in(planted));
        assert!(!Bug::ConfirmOnSend.planted_in(planted));
        assert!(!planted());
        let before = Rare::WalQuarantined.visits();
        Rare::WalQuarantined.visit();
        assert!(Rare::WalQuarantined.visits() > before);
    }
}
