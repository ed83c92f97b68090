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

/// A primary's reign: `term` in the upper 32 bits, `reopen` in the lower 32.
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
    pub const FIRST: Epoch = Epoch::new(1, 0);

    /// Above every reign; never taken.
    pub const LAST: Epoch = Epoch(u64::MAX);

    /// The reign of this term and reopen.
    #[must_use]
    pub const fn new(term: u32, reopen: u32) -> Epoch {
        Epoch((term as u64) << 32 | reopen as u64)
    }

    /// Grows at a promotion.
    #[must_use]
    pub const fn term(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Grows at a reopen as primary, from 0 in each term.
    #[must_use]
    pub const fn reopen(self) -> u32 {
        self.0 as u32
    }

    /// The reign after a reopen as primary; None after the last one of a term, never a number of the next.
    #[must_use]
    pub fn reopened(self) -> Option<Epoch> {
        if self == Epoch::ZERO {
            Some(Epoch::FIRST)
        } else {
            let next = Epoch::new(self.term(), self.reopen().checked_add(1)?);
            (next != Epoch::LAST).then_some(next)
        }
    }

    /// The reign after a promotion: above every reopen of the one before. After the last term it is
    /// [`LAST`](Epoch::LAST), which nobody may take.
    #[must_use]
    pub fn promoted(self) -> Epoch {
        match self.term().checked_add(1) {
            Some(term) => Epoch::new(term, 0),
            None => Epoch::LAST,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term(), self.reopen())
    }
}

/// Running HMAC-SHA256 (first 16 bytes) over the WAL stream up to a record boundary: proves that the stream is
/// as it was written, and tells two histories apart that share epochs and positions.
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

#[cfg(test)]
mod tests {
    use super::Epoch;

    #[test]
    fn a_promotion_is_above_every_reopen_of_the_term_before() {
        let last_reopen = Epoch::new(7, u32::MAX);
        assert_eq!(Epoch::new(7, 3).reopened(), Some(Epoch::new(7, 4)));
        assert_eq!(last_reopen.promoted(), Epoch::new(8, 0));
        assert!(last_reopen < Epoch::new(7, 0).promoted());
        assert_eq!(Epoch::new(8, 5).to_string(), "8.5");
    }

    #[test]
    fn a_term_that_has_no_reopens_left_gives_none_and_never_a_number_of_the_next() {
        assert_eq!(Epoch::new(7, u32::MAX).reopened(), None);
        assert_eq!(Epoch::new(u32::MAX, u32::MAX - 1).reopened(), None);
        assert_eq!(Epoch::new(u32::MAX, 0).promoted(), Epoch::LAST);
    }
}
