//! The file system after a power failure: what becomes of everything that was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::cruelty::Strike;
use super::fault::Plan;
use super::image::{Fate, FileNode, Length};
use super::names::{DirNode, Ino, Unsynced};
use super::rng::SplitMix;
use super::{CrashMode, Node, ROOT, SimFs, State};

impl State {
    pub(super) fn crashed(&self, mode: CrashMode, seed: u64) -> SimFs {
        let manner = match mode {
            CrashMode::DropAll => Manner {
                data: Fate::Drop,
                names: Keep::None,
                odd_one: None,
            },
            CrashMode::KeepAll => Manner {
                data: Fate::Keep,
                names: Keep::All,
                odd_one: None,
            },
            CrashMode::KeepRandom => self.manner(seed),
        };
        let mut rng = SplitMix::new(seed ^ 0x6372_6173_6865_6421);
        let mut strikes = Vec::new();
        let mut strike = |what| {
            strikes.push(Strike {
                what,
                op: None,
                path: PathBuf::new(),
            });
        };
        let nodes = self.nodes.iter().map(|(ino, node)| {
            let node = match node {
                Node::File(file) => {
                    let fate = match manner.odd_one {
                        Some((odd, fate)) if odd == *ino => fate,
                        _ => manner.data,
                    };
                    let left = file.crash(fate, &mut rng);
                    match fate {
                        _ if left.len() < file.current().len() => strike("growth lost"),
                        _ if file.is_settled() || left.same_as(file.current()) => {}
                        Fate::Each { torn: true, .. } => strike("sectors torn"),
                        _ => strike("bytes lost"),
                    }
                    Node::File(Arc::new(FileNode::settled(left)))
                }
                Node::Dir(dir) => {
                    let lost = |u: &&Unsynced| !manner.names.keeps(u.time, seed);
                    dir.unsynced().iter().filter(lost).for_each(|u| strike(u.loss()));
                    Node::Dir(Arc::new(DirNode::settled(dir.crash(
                        |time| manner.names.keeps(time, seed),
                        |time| {
                            let weak = self.manners.weak_renames && mode == CrashMode::KeepRandom;
                            weak && SplitMix::new(seed ^ time.wrapping_mul(0x51ed)).chance(64)
                        },
                    ))))
                }
            };
            (*ino, node)
        });
        let nodes = nodes.collect();
        let mut state = State {
            nodes,
            next: self.next,
            plan: Plan {
                strikes,
                ..Plan::default()
            },
            open: BTreeMap::new(),
            locks: BTreeSet::new(),
            half_synced: BTreeMap::new(),
            manners: self.manners.clone(),
        };
        let mut reachable = BTreeSet::new();
        let mut ahead = vec![ROOT];
        while let Some(ino) = ahead.pop() {
            if reachable.insert(ino)
                && let Some(dir) = state.dir(ino)
            {
                ahead.extend(dir.current().values());
            }
        }
        state.nodes.retain(|ino, _| reachable.contains(ino));
        SimFs::from_state(state)
    }

    /// One of the manners in which disks lose things.
    fn manner(&self, seed: u64) -> Manner {
        let mut rng = SplitMix::new(seed);
        let keep = [32, 128, 224][rng.below(3) as usize];
        let length = [Length::Newest, Length::Oldest, Length::Any, Length::Any][rng.below(4) as usize];
        let each = Fate::Each {
            keep,
            length,
            torn: rng.chance(64),
            garbage: rng.chance(64),
        };
        let unsettled: Vec<Ino> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.unsynced() > 0)
            .map(|(ino, _)| *ino)
            .collect();
        let one = unsettled
            .get(rng.below(unsettled.len() as u64) as usize)
            .copied()
            .unwrap_or(ROOT);
        let (data, names, odd_one) = match rng.below(8) {
            0..=2 => (each, Keep::Some(keep), None),
            3 => {
                let time = 1 + rng.below(self.plan.ops.max(1));
                (Fate::Until(time), Keep::Until(time), None)
            }
            4 => (Fate::Keep, Keep::All, Some((one, each))),
            5 => (Fate::Drop, Keep::All, Some((one, each))),
            6 => (each, Keep::All, None),
            _ => (each, Keep::None, None),
        };
        Manner { data, names, odd_one }
    }
}

/// How one crash treats what was not synced.
struct Manner {
    data: Fate,
    names: Keep,
    /// A file treated otherwise than the rest.
    odd_one: Option<(Ino, Fate)>,
}

#[derive(Clone, Copy)]
enum Keep {
    None,
    All,
    Until(u64),
    /// In so many of 256 cases.
    Some(u64),
}

impl Keep {
    fn keeps(self, time: u64, seed: u64) -> bool {
        match self {
            Keep::None => false,
            Keep::All => true,
            Keep::Until(last) => time <= last,
            Keep::Some(parts) => SplitMix::new(seed.wrapping_add(time.wrapping_mul(0x9e37))).chance(parts),
        }
    }
}
