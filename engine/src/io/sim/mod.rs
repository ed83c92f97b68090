//! A machine in memory: files that lose what was not synced, seeded randomness, time by hand.
//!
//! [`SimFs`] keeps files apart from names, and for both what is seen now apart from what is durable:
//!
//! 1. Bytes and lengths become durable by `File::sync`, names by `Vfs::sync_dir` of their directory;
//!    syncing a file does not make its name durable.
//! 2. A crash ([`SimFs::crashed_image`]) keeps any part of the rest: each 512-byte sector of each
//!    write, each length and each name on its own. A rename is kept whole or not at all, between two
//!    directories as well, and is certain once both are synced. See [`CrashMode`].
//! 3. Open files survive the removal or renaming of their names; locks do not survive a crash.
//! 4. A failed sync ([`Fault`]) leaves bytes readable that no later sync makes durable.
//! 5. What else may go wrong is switched on: a full disk at a write or only at the sync, too few handles,
//!    syncs that hang or make names durable too, renames that leave both names, bad sectors, and calls
//!    that return Ok and do something else ([`Misdeed`]).
//!
//! Operations are counted, so that a test can run a scenario once and then try every one of them as
//! the moment of a crash: by [`SimFs::crash_at`], which also tries how the engine copes with calls
//! that fail from there on, or by [`SimFs::probe`], which takes a [`fork`](SimFs::fork) at every
//! operation of one single run. Forks share pages until one side writes.
//!
//! What it leaves out: modes and owners, times of files, symbolic links, memory maps, and reordering
//! of changes to the very same sector or of dependent changes to the same name.

mod clock;
mod crash;
mod cruelty;
mod fault;
mod fs;
mod image;
mod names;
mod rng;
#[cfg(test)]
mod tests;

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub use clock::SimClock;
pub use cruelty::{Misdeed, Strike};
pub use fault::{Calls, Fault, Op, OpKind, Times};
pub use rng::SimRng;

use super::Io;
use cruelty::{Manners, SyncHook};
use fault::{Plan, Verdict};
use image::{Content, FileNode};
use names::{DirNode, Ino};

/// What a crash leaves of changes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashMode {
    /// Nothing.
    DropAll,
    /// Everything, but what a failed sync lost. (A kill of the process loses nothing: [`SimFs::fork`].)
    KeepAll,
    /// A part that the seed chooses, in one of several manners: each sector, length and name on its
    /// own; all up to some moment; all of one file only, or of all but one; names without bytes and
    /// bytes without names. Sectors may be torn inside, lost bytes of a new length read as garbage.
    KeepRandom,
}

/// Root of every simulated file system.
const ROOT: Ino = 1;

#[derive(Clone)]
enum Node {
    File(Arc<FileNode>),
    Dir(Arc<DirNode>),
}

#[derive(Clone)]
struct State {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    plan: Plan,
    /// Handles by file: keeps files without names.
    open: BTreeMap<Ino, u64>,
    locks: BTreeSet<PathBuf>,
    /// Moves between directories of which one is synced: by time, which one.
    half_synced: BTreeMap<u64, Ino>,
    manners: Manners,
}

type Probe = Box<dyn FnMut(&Op, &SimFs) + Send>;
type Lie = Box<dyn Fn(&Op) -> bool + Send>;

struct Shared {
    state: Mutex<State>,
    probe: Mutex<Option<Probe>>,
    lie: Mutex<Option<Lie>>,
    before_sync: Mutex<Option<SyncHook>>,
}

/// A simulated file system: a handle, cheap to clone; all clones are one file system.
#[derive(Clone)]
pub struct SimFs(Arc<Shared>);

impl Default for SimFs {
    fn default() -> SimFs {
        SimFs::new()
    }
}

impl SimFs {
    /// An empty file system.
    pub fn new() -> SimFs {
        SimFs::from_state(State {
            nodes: BTreeMap::from([(ROOT, Node::Dir(Arc::default()))]),
            next: ROOT + 1,
            plan: Plan::default(),
            open: BTreeMap::new(),
            locks: BTreeSet::new(),
            half_synced: BTreeMap::new(),
            manners: Manners::default(),
        })
    }

    fn from_state(state: State) -> SimFs {
        SimFs(Arc::new(Shared {
            state: Mutex::new(state),
            probe: Mutex::new(None),
            lie: Mutex::new(None),
            before_sync: Mutex::new(None),
        }))
    }

    /// A machine with these files, a clock of its own, and the random bytes of `seed`.
    ///
    /// Two runs that seal must not share a seed: they would repeat (key, nonce) pairs, and the
    /// recorder of tests panics at that.
    pub fn io(&self, seed: u64) -> Io {
        Io {
            vfs: Arc::new(self.clone()),
            clock: Arc::new(SimClock::new()),
            rng: Arc::new(SimRng::new(seed)),
        }
    }

    // ---- counting and failing ----

    /// Changing and syncing operations so far.
    pub fn ops(&self) -> u64 {
        self.state().plan.ops
    }

    /// Reading calls so far.
    pub fn reads(&self) -> u64 {
        self.state().plan.reads
    }

    /// Calls that needed a file descriptor so far.
    pub fn opens(&self) -> u64 {
        self.state().plan.opens
    }

    /// Turns the machine off at operation `op` (from 1, counted as [`SimFs::ops`]): it and all later
    /// calls fail. With `half_write`, if that operation is a write its first half gets done.
    pub fn crash_at(&self, op: u64, half_write: bool) {
        self.state().plan.crash_at = Some((op, half_write));
    }

    /// Turns the machine off now.
    pub fn crash_now(&self) {
        self.state().plan.crashed = true;
    }

    /// Whether the machine is off.
    pub fn crashed(&self) -> bool {
        self.state().plan.crashed
    }

    /// Adds a fault.
    pub fn fail(&self, fault: Fault) {
        self.state().plan.faults.push(fault);
    }

    /// Forgets all faults and the planned crash: the machine works again (unless it is off).
    pub fn clear_faults(&self) {
        let plan = &mut self.state().plan;
        plan.faults.clear();
        plan.misdeeds.clear();
        plan.spoilt.clear();
        plan.crash_at = None;
    }

    /// Files that are open, counted by handle.
    pub fn open_handles(&self) -> u64 {
        self.state().open.values().sum()
    }

    /// Locks that are held.
    pub fn held_locks(&self) -> u64 {
        self.state().locks.len() as u64
    }

    /// Bytes in files, those without names but still open included.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Calls `probe` before every changing operation with a fork of that moment: what a crash right
    /// there is decided about. One probe; it must not call this file system.
    pub fn probe(&self, probe: impl FnMut(&Op, &SimFs) + Send + 'static) {
        *self.0.probe.lock() = Some(Box::new(probe));
    }

    /// Drops the probe.
    pub fn clear_probe(&self) {
        *self.0.probe.lock() = None;
    }

    /// Makes syncs (of files and directories) that `lie` picks return Ok without doing anything: a
    /// planted fault, to prove that a test would notice if the engine left that sync out. Not forked.
    pub fn lie_about_syncs(&self, lie: impl Fn(&Op) -> bool + Send + 'static) {
        *self.0.lie.lock() = Some(Box::new(lie));
    }

    fn is_a_lie(&self, kind: OpKind, path: &Path, number: u64) -> bool {
        let lie = self.0.lie.lock();
        lie.as_ref().is_some_and(|lie| {
            lie(&Op {
                number,
                kind,
                path: path.to_path_buf(),
            })
        })
    }

    // ---- copies ----

    /// An independent copy of this moment, unsynced changes included; no handles, locks, faults or
    /// probe, and not off. Costs a pointer for each file.
    pub fn fork(&self) -> SimFs {
        self.state().fork()
    }

    /// The file system after a power failure now. `seed` matters for [`CrashMode::KeepRandom`] only.
    pub fn crashed_image(&self, mode: CrashMode, seed: u64) -> SimFs {
        self.state().crashed(mode, seed)
    }

    /// Changes that a crash may lose, of bytes, lengths and names. With none, and no failed sync
    /// before, all crashes leave the same.
    pub fn unsynced(&self) -> u64 {
        self.state().nodes.values().map(Node::unsynced).sum()
    }

    // ---- looking and damaging, uncounted ----

    /// Every file with its content as read now.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        let mut files = BTreeMap::new();
        state.walk(ROOT, Path::new("/"), &mut |path, node| {
            if let Node::File(file) = node {
                files.insert(path.to_path_buf(), file.current().to_vec());
            }
        });
        files
    }

    /// Content of one file as read now.
    pub fn content(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        match self.state().lookup(path.as_ref()).ok()? {
            (_, Node::File(file)) => Some(file.current().to_vec()),
            _ => None,
        }
    }

    /// A number that is equal for file systems with equal names and contents as read now.
    pub fn digest(&self) -> u64 {
        let state = self.state();
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        state.walk(ROOT, Path::new("/"), &mut |path, node| {
            hash.update(path.as_os_str().as_encoded_bytes());
            match node {
                Node::File(file) => {
                    hash.update(&file.current().len().to_le_bytes());
                    hash.update(&file.current().to_vec());
                }
                Node::Dir(_) => hash.update(&[0]),
            }
        });
        hash.digest()
    }

    /// Damages a file's bytes, also the durable ones; false if there is no such file.
    pub fn corrupt(&self, path: impl AsRef<Path>, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Ok((ino, Node::File(file))) = state.lookup(path.as_ref()) else {
            return false;
        };
        let mut bytes = file.current().to_vec();
        damage(&mut bytes);
        let file = FileNode::settled(Content::from_bytes(&bytes));
        state.nodes.insert(ino, Node::File(Arc::new(file)));
        true
    }

    /// Removes a file's name for good; false if there is no such file.
    pub fn lose(&self, path: impl AsRef<Path>) -> bool {
        let mut state = self.state();
        let Ok((dir, name)) = state.parent(path.as_ref()) else {
            return false;
        };
        let known = state.dir(dir).is_some_and(|d| d.current().contains_key(&name));
        if let Some(dir) = state.dir_mut(dir) {
            dir.force(&name, None);
        }
        known
    }

    /// Exchanges the contents of two files; false if one of them does not exist.
    pub fn swap(&self, a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
        match (self.content(&a), self.content(&b)) {
            (Some(in_a), Some(in_b)) => {
                self.corrupt(a, |bytes| *bytes = in_b) && self.corrupt(b, |bytes| *bytes = in_a)
            }
            _ => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Counts an operation, lets the probe see it, and decides about it.
    fn change(&self, kind: OpKind, path: &Path) -> (MutexGuard<'_, State>, Verdict) {
        let mut probe = self.0.probe.lock();
        if let Some(probe) = probe.as_mut() {
            let state = self.state();
            if !state.plan.crashed {
                let op = Op {
                    number: state.plan.ops + 1,
                    kind,
                    path: path.to_path_buf(),
                };
                let fork = state.fork();
                drop(state);
                probe(&op, &fork);
            }
        }
        drop(probe);
        let mut state = self.state();
        let verdict = state.plan.change(kind);
        if let Some(what) = state.plan.struck(verdict) {
            state.strike(what, Some(kind), path);
        }
        (state, verdict)
    }

    /// Like [`change`](SimFs::change), for operations that fail whole.
    fn changing(&self, kind: OpKind, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let (state, verdict) = self.change(kind, path);
        state.pass(verdict)?;
        Ok(state)
    }

    fn reading(&self, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        self.reading_by(path, false)
    }

    /// A reading call that needs a descriptor of its own.
    fn opening(&self, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.reading_by(path, true)?;
        state.check_handles(path)?;
        Ok(state)
    }

    fn reading_by(&self, path: &Path, opens: bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let verdict = state.plan.read(opens);
        if let Some(what) = state.plan.struck(verdict) {
            state.strike(what, None, path);
        }
        state.pass(verdict)?;
        Ok(state)
    }
}

impl Node {
    fn unsynced(&self) -> u64 {
        match self {
            Node::File(file) => file.unsynced(),
            Node::Dir(dir) => dir.unsynced().len() as u64,
        }
    }
}

impl State {
    fn pass(&self, verdict: Verdict) -> io::Result<()> {
        match verdict {
            Verdict::Execute => Ok(()),
            Verdict::Fail { kind, .. } => Err(fault::error(kind, self.plan.crashed)),
        }
    }

    fn fork(&self) -> SimFs {
        let mut state = self.clone();
        state.plan = Plan::default();
        // Operation numbers are the times of unsynced changes: they go on counting.
        state.plan.ops = self.plan.ops;
        state.open.clear();
        state.locks.clear();
        SimFs::from_state(state)
    }

    fn used(&self) -> u64 {
        self.nodes
            .values()
            .map(|n| {
                if let Node::File(f) = n {
                    f.current().len()
                } else {
                    0
                }
            })
            .sum()
    }

    fn dir(&self, ino: Ino) -> Option<&DirNode> {
        match self.nodes.get(&ino) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Option<&mut DirNode> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Dir(dir)) => Some(Arc::make_mut(dir)),
            _ => None,
        }
    }

    fn file_mut(&mut self, ino: Ino) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(Arc::make_mut(file)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The node a path names.
    fn lookup(&self, path: &Path) -> io::Result<(Ino, Node)> {
        let mut ino = ROOT;
        for part in parts(path) {
            let dir = self.dir(ino).ok_or(io::ErrorKind::NotADirectory)?;
            ino = *dir.current().get(&part).ok_or(io::ErrorKind::NotFound)?;
        }
        let node = self.nodes.get(&ino).ok_or(io::ErrorKind::NotFound)?;
        Ok((ino, node.clone()))
    }

    /// The existing directory a path's last name is in, and that name.
    fn parent(&self, path: &Path) -> io::Result<(Ino, String)> {
        let mut parts = parts(path);
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir: PathBuf = parts.iter().collect();
        match self.lookup(&dir)? {
            (ino, Node::Dir(_)) => Ok((ino, name)),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn add(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        ino
    }

    fn walk(&self, ino: Ino, path: &Path, visit: &mut impl FnMut(&Path, &Node)) {
        let Some(node) = self.nodes.get(&ino) else { return };
        visit(path, node);
        if let Node::Dir(dir) = node {
            dir.current()
                .iter()
                .for_each(|(name, ino)| self.walk(*ino, &path.join(name), visit));
        }
    }

    /// Forgets files that nothing can name any more.
    fn sweep(&mut self) {
        let mut alive: BTreeSet<Ino> = self.open.keys().copied().chain([ROOT]).collect();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                alive.extend(dir.inodes());
            }
        }
        self.nodes.retain(|ino, _| alive.contains(ino));
    }
}

/// The names along a path from the root; relative paths begin there too.
fn parts(path: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts
}

/// A path by its names only, so that equal places are equal.
fn normal(path: &Path) -> PathBuf {
    Path::new("/").join(parts(path).iter().collect::<PathBuf>())
}
