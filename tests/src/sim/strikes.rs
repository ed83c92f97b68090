//! What was injected, by kind and by row of the fault list (research/reliability.md, section 2).

use std::path::Path;

use strongroom::io::sim::{OpKind, Strike};

use crate::layers::{Counters, counted};

/// What a file is for, by where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Segments of the log.
    Wal,
    /// Tables.
    Table,
    /// Manifests and CURRENT.
    Manifest,
    /// The keystore's base and log.
    Keystore,
    /// Anything else.
    Other,
}

/// By its path.
pub fn purpose(path: &Path) -> Purpose {
    let has = |part: &str| path.components().any(|c| c.as_os_str() == part);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match () {
        () if has("wal") => Purpose::Wal,
        () if has("tables") => Purpose::Table,
        () if has("keystore") => Purpose::Keystore,
        () if name.starts_with("manifest-") || name == "CURRENT" => Purpose::Manifest,
        () => Purpose::Other,
    }
}

/// Counts strikes.
pub fn count(counters: &mut Counters, strikes: Vec<Strike>) {
    for strike in strikes {
        counters.add(counted::fault(&kind(&strike)), 1);
        if let Some(row) = row(&strike) {
            counters.add(counted::row(row), 1);
        }
    }
}

fn kind(strike: &Strike) -> String {
    match strike.op {
        Some(op) if strike.what.starts_with('E') => format!("{} at {op:?}", strike.what),
        None if strike.what == "EIO" => "EIO at a read".to_string(),
        _ => strike.what.to_string(),
    }
}

fn row(strike: &Strike) -> Option<u32> {
    let row = match (strike.what, strike.op) {
        ("sectors torn", _) => 4,
        ("name lost", _) => 5,
        ("rename lost", _) => 6,
        ("growth lost", _) => 9,
        ("EIO", Some(OpKind::Sync | OpKind::SyncDir)) => 11,
        ("EIO", Some(OpKind::Write)) if purpose(&strike.path) == Purpose::Wal => 12,
        ("EIO", None) | ("bad sector", _) => 13,
        ("ENOSPC", _) => 14,
        ("EMFILE", _) => 16,
        ("hanging sync", _) => 17,
        ("lost write" | "misplaced write" | "write elsewhere", _) => 34,
        _ => return None,
    };
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_are_counted_by_kind_and_row() {
        let strike = |what, op, path: &str| Strike {
            what,
            op,
            path: path.into(),
        };
        let mut counters = Counters::default();
        let strikes = vec![
            strike("EIO", Some(OpKind::Sync), "/srv/db/wal/1.wal"),
            strike("EIO", Some(OpKind::Write), "/srv/db/wal/1.wal"),
            strike("EIO", Some(OpKind::Write), "/srv/db/CURRENT"),
            strike("EIO", None, "/srv/db/tables/1.table"),
            strike("lost write", Some(OpKind::Write), "/srv/db/keystore/base-1"),
        ];
        count(&mut counters, strikes);
        for row in [11, 12, 13, 34] {
            assert_eq!(counters.get(&counted::row(row)), 1, "{row}");
        }
        assert_eq!(counters.get("fault: EIO at Write"), 2);
        assert_eq!(counters.get("fault: EIO at a read"), 1);
    }
}
