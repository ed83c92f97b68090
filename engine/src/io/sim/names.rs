//! A simulated directory: names now, names for certain, and the changes between.

use std::collections::BTreeMap;

/// Number of a file or directory, apart from its names.
pub(super) type Ino = u64;

/// What became of names in one directory by one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A name came to mean a file: create, link, or the arriving half of a move between directories.
    Set { name: String, ino: Ino },
    /// A name went: remove, or the leaving half of a move between directories.
    Unset { name: String, ino: Ino },
    /// Both at once.
    Rename { from: String, to: String, ino: Ino },
}

#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    /// Number of the operation that made it: both halves of a move have the same.
    pub(super) time: u64,
    /// For a move: the other directory, whose sync is needed too.
    pub(super) other: Option<Ino>,
    change: Change,
}

/// A directory apart from its name.
#[derive(Clone, Default)]
pub(super) struct DirNode {
    current: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
    unsynced: Vec<Unsynced>,
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Ino>) {
        match self {
            Change::Set { name, ino } => {
                names.insert(name.clone(), *ino);
            }
            Change::Unset { name, ino } => unset(names, name, *ino),
            Change::Rename { from, to, ino } => {
                unset(names, from, *ino);
                names.insert(to.clone(), *ino);
            }
        }
    }

    fn ino(&self) -> Ino {
        match self {
            Change::Set { ino, .. } | Change::Unset { ino, .. } | Change::Rename { ino, .. } => *ino,
        }
    }
}

impl Unsynced {
    /// What a crash does that takes it back.
    pub(super) fn loss(&self) -> &'static str {
        match self.change {
            Change::Set { .. } => "name lost",
            Change::Unset { .. } => "removal lost",
            Change::Rename { .. } => "rename lost",
        }
    }
}

/// A name that has come to mean another file meanwhile is left alone.
fn unset(names: &mut BTreeMap<String, Ino>, name: &str, ino: Ino) {
    if names.get(name) == Some(&ino) {
        names.remove(name);
    }
}

impl DirNode {
    pub(super) fn settled(names: BTreeMap<String, Ino>) -> DirNode {
        DirNode {
            current: names.clone(),
            durable: names,
            unsynced: Vec::new(),
        }
    }

    pub(super) fn current(&self) -> &BTreeMap<String, Ino> {
        &self.current
    }

    pub(super) fn change(&mut self, time: u64, other: Option<Ino>, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(Unsynced { time, other, change });
    }

    /// Settles all changes but the halves of moves whose other half (`settled` tells) is not.
    pub(super) fn sync(&mut self, settled: impl Fn(&Unsynced) -> bool) {
        let durable = &mut self.durable;
        self.unsynced.retain(|u| {
            let now = u.other.is_none() || settled(u);
            if now {
                u.change.apply(durable);
            }
            !now
        });
    }

    /// Settles one move's half.
    pub(super) fn settle_move(&mut self, time: u64) {
        let durable = &mut self.durable;
        self.unsynced.retain(|u| {
            let now = u.time == time && u.other.is_some();
            if now {
                u.change.apply(durable);
            }
            !now
        });
    }

    pub(super) fn unsynced(&self) -> &[Unsynced] {
        &self.unsynced
    }

    /// The names after a crash; `keep` decides by time, so that both halves of a move share a fate, and
    /// `double` of which renames in one directory the old name stays beside the new one.
    pub(super) fn crash(
        &self,
        keep: impl Fn(u64) -> bool,
        double: impl Fn(u64) -> bool,
    ) -> BTreeMap<String, Ino> {
        let mut names = self.durable.clone();
        for u in self.unsynced.iter().filter(|u| keep(u.time)) {
            match &u.change {
                Change::Rename { to, ino, .. } if double(u.time) => drop(names.insert(to.clone(), *ino)),
                change => change.apply(&mut names),
            }
        }
        names
    }

    /// Every file it names, named, or may name after a crash.
    pub(super) fn inodes(&self) -> impl Iterator<Item = Ino> {
        let names = self.current.values().chain(self.durable.values()).copied();
        names.chain(self.unsynced.iter().map(|u| u.change.ino()))
    }

    /// For damage by hand: changes the name in both views.
    pub(super) fn force(&mut self, name: &str, ino: Option<Ino>) {
        for names in [&mut self.current, &mut self.durable] {
            match ino {
                Some(ino) => names.insert(name.to_string(), ino),
                None => names.remove(name),
            };
        }
    }
}
