//! Positions and identifiers: newtypes over integers, with their reserved values.
//!
//! An [`Lsn`] is a place in the WAL byte stream, a [`SeqNo`] a version of an entry, an [`Epoch`] a
//! primary's reign. They never mix; the compiler sees to it.

use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

newtype!(
    /// Numeric tenant id, never reused. 0 is [`TenantId::SYSTEM`]; users' tenants start at 1.
    TenantId(u64)
);
newtype!(
    /// Keyspace id, unique inside its tenant and never reused there. 0 is the tenant's catalog.
    KeyspaceId(u32)
);
newtype!(
    /// Byte position in the WAL stream. Segment headers count: a segment named for Lsn `s` holds
    /// exactly the stream bytes `s ..`.
    Lsn(u64)
);
newtype!(
    /// Version of an entry; larger wins. One per committed batch, dense from 1. 0 means "before all".
    SeqNo(u64)
);
newtype!(
    /// Version of a tenant's data-encryption key, from 1.
    DekVersion(u32)
);

impl TenantId {
    /// The engine's own tenant: manifest edits, server credentials. Its key is never shredded.
    pub const SYSTEM: TenantId = TenantId(0);
}

impl KeyspaceId {
    /// Holds the names and ids of the tenant's keyspaces, sealed like all its data.
    pub const CATALOG: KeyspaceId = KeyspaceId(0);
}

impl Lsn {
    /// The start of the stream.
    pub const ZERO: Lsn = Lsn(0);

    /// The position `bytes` further on; saturates at the end of the 64-bit stream.
    #[must_use]
    pub fn advance(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

impl SeqNo {
    /// Before every entry.
    pub const ZERO: SeqNo = SeqNo(0);
    /// After every entry; never assigned.
    pub const MAX: SeqNo = SeqNo(u64::MAX);

    /// The next version.
    #[must_use]
    pub fn next(self) -> SeqNo {
        SeqNo(self.0.saturating_add(1))
    }
}

/// A primary's reign: `term` in the upper 48 bits, `reopen` in the lower 16.
///
/// A promotion takes the next term, a reopen as primary the next number inside its term. So an old
/// primary that reopens by itself can never pick the number its promoted standby picked
/// (docs/decisions/0002-epoch-numbers.md). Larger wins, and fences.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first reign.
    pub const ZERO: Epoch = Epoch(0);
    /// The first reign of a new database.
    pub const FIRST: Epoch = Epoch(1 << 16);

    /// The reign after a reopen as primary.
    #[must_use]
    pub fn reopened(self) -> Epoch {
        if self == Epoch::ZERO {
            Epoch::FIRST
        } else {
            Epoch(self.0.saturating_add(1))
        }
    }

    /// The reign after a promotion: above every reopen of the one before.
    #[must_use]
    pub fn promoted(self) -> Epoch {
        Epoch(((self.0 >> 16).saturating_add(1)) << 16)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// Running SHA-256 (first 16 bytes) over the WAL stream up to a record boundary: tells two histories
/// apart that share epochs and positions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Chain(pub [u8; 16]);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Where a reign began: what epoch histories are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The reign.
    pub epoch: Epoch,
    /// First stream position written in it.
    pub start: Lsn,
    /// Chain up to `start`.
    pub chain: Chain,
}

/// A place in a history: where a commit ended, in which reign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// The reign the commit belongs to.
    pub epoch: Epoch,
    /// Just past the commit record's last byte.
    pub lsn: Lsn,
    /// The version its entries carry.
    pub seqno: SeqNo,
}

/// How far a commit must have got before it is acknowledged. Ordered: later variants promise more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Durability {
    /// Handed to the operating system: survives a kill of the process, not of the machine.
    Buffered,
    /// On stable storage here.
    #[default]
    Local,
    /// On stable storage here and on the standby, in the same epoch. Ends in
    /// [`ErrorKind::Unknown`](crate::ErrorKind::Unknown) when no standby confirms in time.
    Replicated,
}
