//! What a standby is sent: the base copy, the log from there on, and the keys; with the content that each
//! position stands for.

use std::path::Path;
use std::time::Duration;

use strongroom::keys::KeyChanges;
use strongroom::{Engine, Lsn, Result, checkpoint_files};

use super::options;
use crate::dice::fresh_seed;
use crate::oracle::{Content, read_all};
use crate::world::{World, key_of, name_of_space, name_of_tenant};

/// What a primary has to send.
pub(super) struct Sent {
    /// Files of the base copy.
    pub files: Vec<(String, Vec<u8>)>,
    /// The base copy's full set, then a change that brings tenant 3, then one that takes tenant 2.
    pub keys: Vec<KeyChanges>,
    /// The base copy's position, from which the log goes on.
    pub start: Lsn,
    /// The log.
    pub wal: Vec<u8>,
    /// Content after each position, of tenants that were deleted later, too; the base copy's first.
    pub points: Vec<(Lsn, Content)>,
}

impl Sent {
    /// What a standby holds that has applied up to `applied` and has taken over `keys` steps of keys.
    pub fn content(&self, applied: Lsn, keys: usize) -> Content {
        let points = self.points.iter().rev();
        let (_, content) = points
            .clone()
            .find(|(lsn, _)| *lsn <= applied)
            .expect("the base copy");
        let mut content = content.clone();
        match keys {
            0 => drop(content.remove(&name_of_tenant(3))),
            _ => drop(content.entry(name_of_tenant(3)).or_default()),
        }
        if keys == 2 {
            content.remove(&name_of_tenant(2));
        }
        content
    }

    /// How many steps of the keys are here, by the keystore's version.
    pub fn steps(&self, version: u64) -> Option<usize> {
        self.keys.iter().position(|changes| changes.version == version)
    }
}

pub(super) fn read_log(engine: &Engine, from: Lsn, end: Lsn) -> Result<Vec<u8>> {
    let mut cursor = engine.wal_cursor(from)?;
    let mut wal = Vec::new();
    while cursor.position() < end {
        wal.extend_from_slice(&cursor.read(1 << 20, Duration::from_secs(5))?);
    }
    Ok(wal)
}

/// Of a primary, which is returned as after a kill, at the end of what it has sent.
pub(super) fn by_a_primary() -> Result<(Sent, World)> {
    let mut world = World::new(options());
    world.open()?;
    for n in 1..=2 {
        world.create_tenant(&name_of_tenant(n))?;
        world.put(&name_of_tenant(n), "a", 1, 30)?;
    }
    world.flush()?;
    world.put(&name_of_tenant(1), "b", 1, 30)?;
    let pin = world.engine().pin_wal(Lsn::ZERO);
    let start = world.engine().checkpoint("/srv/copy")?.position.lsn;
    let mut keys = vec![world.engine().key_changes(0)];
    let files = checkpoint_files("/srv/copy", &world.fs.io(fresh_seed()))?;
    let content = |name: &String| world.fs.content(Path::new("/srv/copy").join(name));
    let files: Vec<_> = files
        .into_iter()
        .map(|(name, _)| (name.clone(), content(&name).expect("just listed")))
        .collect();
    let mut points = vec![(start, world.visible())];
    let version = world.engine().keystore_version();
    world.create_tenant(&name_of_tenant(3))?;
    keys.push(world.engine().key_changes(version));
    for i in 0..12 {
        let tenant = name_of_tenant(1 + i % 3);
        // A keyspace is created by a commit of its own: a point, too.
        world.keyspace(&tenant, &name_of_space("a"))?;
        points.push((world.engine().status().written, world.visible()));
        world.put(&tenant, "a", i, 40 + 100 * i as usize)?;
        points.push((world.engine().status().written, world.visible()));
    }
    let version = world.engine().keystore_version();
    let second = world.visible().remove(&name_of_tenant(2)).unwrap_or_default();
    world.delete_tenant(&name_of_tenant(2))?;
    keys.push(world.engine().key_changes(version));
    for i in 0..3 {
        world.put(&name_of_tenant(1), "a", i, 50)?;
        let mut content = world.visible();
        content.insert(name_of_tenant(2), second.clone());
        points.push((world.engine().status().written, content));
    }
    let end = world.engine().status().durable;
    let wal = read_log(world.engine(), start, end)?;
    drop(pin);
    world.kill();
    let sent = Sent {
        files,
        keys,
        start,
        wal,
        points,
    };
    Ok((sent, world))
}

/// Of the node that was promoted after all of `first`: to the old primary, which stands at the end of it.
pub(super) fn by_the_promoted(engine: &Engine, first: &Sent) -> Result<Sent> {
    let start = first.start.advance(first.wal.len() as u64);
    let mut points = vec![(start, read_all(engine)?)];
    let space = engine
        .tenant(&name_of_tenant(1))?
        .keyspace(&name_of_space("new"))?;
    points.push((engine.status().written, read_all(engine)?));
    for i in 0..6 {
        space.put(key_of(i), vec![7; 40 + 300 * i as usize])?;
        points.push((engine.status().written, read_all(engine)?));
    }
    let end = engine.status().durable;
    Ok(Sent {
        files: Vec::new(),
        keys: first.keys.clone(),
        start,
        wal: read_log(engine, start, end)?,
        points,
    })
}
