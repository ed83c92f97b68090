//! A case: everything a run does, as an explicit list. Text, one act a line, so that it can be kept,
//! replayed after the code has changed, and cut down to what matters.
//!
//! Acts carry numbers only. What a number means is found when the act is done ("the second tenant that
//! lives then"), and an act that does not apply is skipped: so any subset of a case is a case.

use std::fmt;
use std::str::FromStr;

/// The acts, with text both ways.
macro_rules! acts {
    ($($(#[doc = $doc:literal])+ $name:ident { $($field:ident),* },)*) => {
        /// One thing to do.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "fields are numbers named by their use")]
        pub enum Act { $($(#[doc = $doc])+ $name { $($field: u64),* },)* }

        impl fmt::Display for Act {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Act::$name { $($field),* } => {
                        f.write_str(stringify!($name))?;
                        $(write!(f, concat!(" ", stringify!($field), "={}"), $field)?;)*
                        Ok(())
                    })*
                }
            }
        }

        impl FromStr for Act {
            type Err = String;

            fn from_str(line: &str) -> Result<Act, String> {
                let mut words = line.split_whitespace();
                let name = words.next().unwrap_or_default();
                let fields: Vec<(&str, &str)> = words.filter_map(|w| w.split_once('=')).collect();
                let field = |name: &str| {
                    let found = fields.iter().find(|(known, _)| *known == name);
                    found.and_then(|(_, value)| value.parse().ok()).ok_or(format!("{line}: no {name}"))
                };
                let _ = &field;
                match name {
                    $(stringify!($name) => Ok(Act::$name { $($field: field(stringify!($field))?),* }),)*
                    _ => Err(format!("{line}: no such act")),
                }
            }
        }
    };
}

acts! {
    /// Creates one of the tenants, or tries to create it again.
    CreateTenant { tenant },
    /// Deletes a tenant.
    DeleteTenant { tenant },
    /// Deletes a keyspace.
    DeleteKeyspace { tenant, space },
    /// Puts a fresh value; `synced` 0 is `Buffered`.
    Put { tenant, space, key, len, synced },
    /// Deletes a key.
    Delete { tenant, space, key, synced },
    /// A batch over keyspaces; its operations follow from `seed`.
    Batch { tenant, ops, seed, synced },
    /// Deletes a range of keys: from the one numbered `from` on, `to` and one more of them, or all that follow.
    DeleteRange { tenant, space, from, to, synced },
    /// A batch of puts, deletes and range deletes; which follow from `seed`.
    BatchOfRanges { tenant, ops, seed, synced },
    /// Takes a snapshot, deletes a range, puts `again` of its keys, flushes, compacts, and reads everything.
    OutliveRangeDelete { tenant, space, from, to, again },
    /// Lays values deep, deletes two ranges of them, and reads everything after each of `most` background jobs.
    RangeDeleteOverOlder { tenant, space, from, to, most },
    /// A put on a condition that holds or does not (`held` 0), on a value or since a snapshot (`since` 1).
    PutIf { tenant, space, key, held, since, synced },
    /// A transaction that adds to a value, disturbed so often by a write to it.
    Transact { tenant, space, key, disturbed, synced },
    /// Puts that expire together after so many milliseconds: `keys` of them, from `key` on.
    PutExpiring { tenant, space, key, keys, len, ttl, synced },
    /// The clock goes on to the moment at which one of the values expires, or to so many milliseconds `before` it;
    /// everything is read and compared.
    UntilExpiry { which, before },
    /// A value that expires hides an older one in tables below it; it expires, is compacted, and everything is read.
    ExpireOverOlder { tenant, space, key },
    /// A value that expires goes down to where nothing moves it; its grace passes, and so does a rest.
    OutliveGrace { tenant, space, key },
    /// A transaction reads a value that expires before its commit, with a compaction in between or not.
    LoseLease { tenant, space, key, compacted },
    /// The clock is set back by so many milliseconds while the engine works, and set right again.
    ClockBack { tenant, space, ms },
    /// Sets a retention: none, days or months, by its number; everything is read and compared.
    Retain { tenant, space, number },
    /// An entry ends under a short retention, is compacted away or not, and the retention gets longer.
    RetainLonger { tenant, space, key, compacted },
    /// A keyspace in tables, from before it had its retention or not, ends by age; its grace passes, and so does a rest.
    AgeOut { tenant, space, before, reopened },
    /// Sets a tenant's quota near what it takes, or (`set` 0) none.
    Quota { tenant, set, above, below },
    /// Lays values of one length deep, hides some of them under a snapshot, and reads everything while background work
    /// goes on; which follow from `seed`.
    HideValues { tenant, space, len, seed },
    /// Sets from which length on values of a keyspace go apart: by its number one of a few, or as the option says.
    Separate { tenant, space, number },
    /// Values of one length that their keyspace has in the tree, compacted; then it has them apart, and again.
    SeparateAnew { tenant, space, len },
    /// Background jobs until there are none: then nothing that expired is overdue.
    Rest {},
    /// Enough entries in one keyspace for a table of its own, and a flush.
    Load { tenant, space, len },
    /// Deletes every key of a keyspace in one batch.
    DeleteAll { tenant, space, synced },
    /// Puts a key many times.
    Overwrite { tenant, space, key, times },
    /// Keeps the log from here on, as a standby that is behind does.
    PinLog {},
    /// Gets a key and compares.
    Get { tenant, space, key },
    /// Gets many keys at once, some twice and some that are not there, and compares; which follow from `seed`.
    MultiGet { tenant, space, seed },
    /// Reads a range, from either end, and compares; bounds follow from `seed`.
    Range { tenant, space, seed },
    /// Takes a snapshot.
    Snapshot { tenant },
    /// Reads a snapshot in full and compares.
    ReadSnapshot { which },
    /// Takes a snapshot, overwrites a key, flushes, compacts, and reads the snapshot.
    OutliveCompaction { tenant, space, key },
    /// Lets a snapshot go.
    DropSnapshot { which },
    /// Reads everything and compares.
    Check {},
    /// Verifies all files while the engine runs.
    Verify {},
    /// Empties the memtables.
    Flush {},
    /// Compacts until nothing is left to do.
    Compact {},
    /// So many background jobs.
    Step { most },
    /// Takes a checkpoint, restores it elsewhere and compares.
    Checkpoint {},
    /// Restores the newest checkpoint again, with a power cut in the middle, and compares.
    Restore { at, seed },
    /// Copies the newest checkpoint to a standby, cut after some chunks, and begun again.
    BaseCopy { at, seed },
    /// Closes in order and opens.
    Reopen {},
    /// Drops the engine and opens.
    Kill {},
    /// Cuts the power now and opens.
    PowerCut { mode, seed },
    /// Cuts the power in the middle of the work that follows, `after` disk operations from now.
    PowerCutAfter { after, half, mode, seed },
    /// Cuts the power, and again while recovery works, and once more while the next one does.
    NestedCuts { first, second, seed },
    /// A disk operation fails, `after` operations from now: `kind` is one of the faults by number.
    Fail { kind, after, forever },
    /// So many bytes of room are left on the disk.
    Room { bytes },
    /// The same, found out only when a file is synced.
    LateRoom { bytes },
    /// Reads of a part of one of the files fail: `what` chooses the kind of file, `which` among them.
    Spoil { what, which, sector },
    /// So many more handles may be open.
    Handles { spare },
    /// Every sync takes so long.
    HangSyncs { ms },
    /// A second process tries to open the database.
    SecondOpener {},
    /// Keys and names at the limits and beyond.
    Limits { tenant, space, synced },
    /// On a copy of the machine: damages a file (see `what` at `Spoil`) by one of the ways, with the
    /// engine killed (`live` 0), open (1) or closed in order (2), and asks everything of it.
    Damage { what, which, way, seed, live },
    /// On a copy of the machine: a write goes wrong unseen, work goes on, then the engine is opened again.
    Misdo { misdeed, after, seed },
    /// Takes all faults away.
    Repair {},
    /// The clock jumps by so many milliseconds.
    ClockJump { ms },
}

/// A whole run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Profile it belongs to.
    pub profile: String,
    /// Seed of the machine's random bytes and of the options.
    pub seed: u64,
    /// What is done.
    pub acts: Vec<Act>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "case engine {} {:#x}", self.profile, self.seed)?;
        self.acts.iter().try_for_each(|act| writeln!(f, "{act}"))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        let words: Vec<&str> = head.split(' ').collect();
        let ["case", "engine", profile, seed] = words[..] else {
            return Err(format!("{head}: not a case of the engine"));
        };
        let seed = seed.strip_prefix("0x").unwrap_or(seed);
        Ok(Case {
            profile: profile.to_string(),
            seed: u64::from_str_radix(seed, 16).map_err(|e| format!("{head}: {e}"))?,
            acts: lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::parse)
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_survives_its_text() {
        let case = Case {
            profile: "engine".into(),
            seed: u64::MAX,
            acts: vec![
                Act::Put {
                    tenant: 1,
                    space: 2,
                    key: 3,
                    len: 4,
                    synced: 1,
                },
                Act::Check {},
                Act::PowerCut { mode: 2, seed: 9 },
            ],
        };
        assert_eq!(case.to_string().parse(), Ok(case.clone()));
        let noted = case.to_string().replace("Check", "# a remark\n\nCheck");
        assert_eq!(noted.parse(), Ok(case));
        assert!("case other p 0x1".parse::<Case>().is_err());
        assert!("case engine p 0x1\nNonsense".parse::<Case>().is_err());
        assert!("case engine p 0x1\nGet tenant=1".parse::<Case>().is_err());
    }
}
