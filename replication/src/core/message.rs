//! What two nodes say to each other, apart from how it is encoded (`wire`).

use bytes::Bytes;
use strongroom::{Epoch, Lsn};

use super::epoch::Hello;
use super::progress::Ack;

/// A standby's message.
#[derive(Clone, Debug)]
pub enum FromStandby {
    Hello(Hello),
    Ack(Ack),
}

/// A primary's message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromPrimary {
    Ok {
        epoch: Epoch,
        start: Lsn,
        end: Lsn,
        window_bytes: u64,
        heartbeat_ms: u32,
        node: String,
    },
    Diverged {
        fork_epoch: Epoch,
        fork: Lsn,
    },
    TooFarBehind {
        oldest: Lsn,
    },
    NotPrimary {
        epoch: Epoch,
    },
    Younger {
        epoch: Epoch,
    },
    WrongDatabase,
    Wal {
        epoch: Epoch,
        first: Lsn,
        bytes: Bytes,
        seen: Seen,
    },
    Heartbeat {
        epoch: Epoch,
        seen: Seen,
    },
}

/// Where the primary's WAL ended, at `ms` of its clock or a little later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub end: Lsn,
    pub ms: u64,
}

/// A primary's message on the base copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromBase {
    Begin {
        database_id: [u8; 16],
        epoch: Epoch,
        lsn: Lsn,
        files: u64,
        bytes: u64,
    },
    File {
        name: String,
        bytes: u64,
    },
    Chunk {
        offset: u64,
        bytes: Bytes,
    },
    End {
        files: u64,
        bytes: u64,
    },
}

/// What a node answers when it is told of a newer epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceOutcome {
    Recorded,
    Harmless,
    NotHigher,
    WrongDatabase,
    Undecided,
}
