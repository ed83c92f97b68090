//! Room ahead of the log's end: made for syncs, gone when the segment is complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::sim::{CrashMode, Fault, OpKind, SimFs};
use crate::keys::MemoryKeys;
use crate::{Durability, Engine, ErrorKind, Keyspace, Options, TenantOptions};

struct Db {
    fs: SimFs,
    keys: Arc<MemoryKeys>,
    engine: Engine,
    keyspace: Keyspace,
}

impl Db {
    fn new() -> Db {
        Db::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Db {
        let (fs, keys) = (SimFs::new(), Arc::new(MemoryKeys::new()));
        let mut options = Options::tiny();
        change(&mut options);
        let builder = Engine::builder("/db").shared_keys(keys.clone());
        let engine = builder.options(options).io(fs.io(1)).open().unwrap();
        let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
        let keyspace = tenant.keyspace("k").unwrap();
        Db {
            fs,
            keys,
            engine,
            keyspace,
        }
    }

    fn open(fs: &SimFs, keys: &Arc<MemoryKeys>, seed: u64) -> crate::Result<Engine> {
        let builder = Engine::builder("/db").shared_keys(keys.clone());
        builder.options(Options::tiny()).io(fs.io(seed)).open()
    }

    fn put(&self, key: u64, len: usize, durability: Durability) -> crate::Result<crate::Position> {
        let tenant = self.engine.tenant("t").unwrap();
        let batch = tenant
            .batch()
            .put(&self.keyspace, key.to_be_bytes(), vec![7; len]);
        batch.durability(durability).commit()
    }

    /// The segments: starts and lengths.
    fn segments(&self) -> Vec<(u64, u64)> {
        let in_wal = |path: &PathBuf| path.parent() == Some(Path::new("/db/wal"));
        let files = self.fs.files().into_iter().filter(|(path, _)| in_wal(path));
        files
            .map(|(path, bytes)| {
                let name = path.file_name().unwrap().to_str().unwrap();
                (super::segment_start(name).unwrap().0, bytes.len() as u64)
            })
            .collect()
    }

    /// How much the newest segment has behind the log's end.
    fn room(&self) -> u64 {
        let (start, len) = *self.segments().last().unwrap();
        start + len - self.engine.status().written.0
    }
}

#[test]
fn syncs_find_the_segments_length_as_it_is_until_its_room_is_used() {
    let db = Db::new();
    db.put(0, 10, Durability::Local).unwrap();
    let (mut grown, mut rooms) = (0, Vec::new());
    for i in 0..40 {
        let before = db.segments();
        db.put(i, 10, Durability::Local).unwrap();
        grown += u64::from(db.segments() != before);
        rooms.push(db.room());
    }
    let most = Options::tiny().segment_bytes / 8;
    assert!(
        rooms.iter().all(|room| *room <= most) && rooms.contains(&most),
        "{rooms:?}"
    );
    assert!((1..10).contains(&grown), "{grown} of 40 puts changed a length");
}

#[test]
fn puts_that_are_not_synced_make_room_where_the_log_is_mapped_and_none_elsewhere() {
    for mapped in [true, false] {
        let db = Db::with(|options| options.map_log = mapped);
        let most = Options::tiny().segment_bytes / 8;
        assert!(db.room() > 0, "what was made for the synced ones before");
        let mut rooms = Vec::new();
        for i in 0..30 {
            db.put(i, 100, Durability::Buffered).unwrap();
            rooms.push(db.room());
        }
        let grew = rooms.windows(2).any(|two| two[1] > two[0]);
        assert_eq!(grew, mapped, "{rooms:?}");
        assert!(rooms.iter().all(|room| *room < most), "{rooms:?}");
    }
}

#[test]
fn a_large_record_that_is_not_synced_makes_no_room() {
    let db = Db::with(|options| options.segment_bytes = 1 << 20);
    let room = |key, len| {
        // More than fit into an eighth of the segment, which is the most there is.
        for _ in 0..60 {
            db.put(1, 3000, Durability::Buffered).unwrap();
        }
        db.put(key, len, Durability::Buffered).unwrap();
        db.room()
    };
    assert_eq!((room(2, 3000), room(3, 100) > 0), (0, true));
}

#[test]
fn a_segment_that_is_complete_and_a_closed_log_have_no_room_whatever_a_crash_takes_back() {
    let db = Db::new();
    while db.segments().len() < 4 {
        db.put(1, 300, Durability::Local).unwrap();
    }
    let touching = |segments: &[(u64, u64)]| segments.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0);
    assert!(touching(&db.segments()), "{:?}", db.segments());
    let fs = db.fs.crashed_image(CrashMode::DropAll, 0);
    let crashed = Db { fs, ..db };
    assert!(touching(&crashed.segments()), "{:?}", crashed.segments());

    let engine = Db::open(&crashed.fs, &crashed.keys, 2).unwrap();
    let keyspace = engine.tenant("t").unwrap().keyspace("k").unwrap();
    let db = Db {
        engine,
        keyspace,
        ..crashed
    };
    db.put(1, 10, Durability::Local).unwrap();
    assert!(db.room() > 0);
    db.engine.close().unwrap();
    assert_eq!(db.room(), 0);
    let fs = db.fs.crashed_image(CrashMode::DropAll, 0);
    let engine = Db::open(&fs, &db.keys, 3).unwrap();
    assert!(engine.recovery().clean && engine.recovery().cut_bytes == 0);
}

#[test]
fn room_is_no_torn_tail_to_the_next_opening() {
    let db = Db::new();
    let position = db.put(1, 10, Durability::Local).unwrap();
    assert!(db.room() > 0);
    let fs = db.fs.crashed_image(CrashMode::KeepAll, 0);
    let engine = Db::open(&fs, &db.keys, 2).unwrap();
    assert_eq!(engine.recovery().cut_bytes, 0);
    let status = engine.status();
    assert!(
        status.written > position.lsn,
        "its own segment begins at the old end"
    );
    let keyspace = engine.tenant("t").unwrap().keyspace("k").unwrap();
    let db = Db {
        fs,
        engine,
        keyspace,
        keys: db.keys,
    };
    let starts: Vec<u64> = db.segments().iter().map(|(start, _)| *start).collect();
    assert_eq!(starts.last(), Some(&position.lsn.0));
}

#[test]
fn a_disk_without_space_for_room_takes_records_as_long_as_they_fit() {
    let db = Db::with(|options| options.map_log = false);
    while db.room() > 0 {
        db.put(1, 10, Durability::Buffered).unwrap();
    }
    // For two records, and not for the room behind the first.
    db.fs.set_capacity(Some(db.fs.used() + 600));
    db.put(2, 10, Durability::Local).unwrap();
    assert_eq!(db.room(), 0, "what fitted of it was given back");
    db.put(3, 10, Durability::Local).unwrap();
    let full = db.put(4, 500, Durability::Local).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    db.fs.set_capacity(None);
    db.put(4, 500, Durability::Local).unwrap();
}

#[test]
fn a_disk_without_space_for_room_takes_buffered_records_as_long_as_they_fit() {
    let db = Db::new();
    while db.room() > 100 {
        db.put(1, 10, Durability::Buffered).unwrap();
    }
    db.fs.set_capacity(Some(db.fs.used() + 600));
    db.put(2, 10, Durability::Buffered).unwrap();
    assert_eq!(db.room(), 0, "what fitted of it was given back");
    db.put(3, 10, Durability::Buffered).unwrap();
    let full = db.put(4, 500, Durability::Buffered).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    db.fs.set_capacity(None);
    let last = db.put(4, 500, Durability::Buffered).unwrap();
    db.engine.close().unwrap();
    let engine = Db::open(&db.fs, &db.keys, 2).unwrap();
    let keyspace = engine.tenant("t").unwrap().keyspace("k").unwrap();
    for (key, len) in [(2u64, 10), (3, 10), (4, 500)] {
        assert_eq!(keyspace.get(key.to_be_bytes()).unwrap().unwrap().len(), len);
    }
    assert!(engine.status().written > last.lsn);
}

#[test]
fn a_write_of_room_that_fails_fails_no_commit() {
    let db = Db::with(|options| options.map_log = false);
    while db.room() > 0 {
        db.put(1, 10, Durability::Buffered).unwrap();
    }
    let (record, room) = (db.fs.ops() + 1, db.fs.ops() + 2);
    db.fs.probe(move |op, _| {
        if op.number == record || op.number == room {
            assert_eq!(op.kind, OpKind::Write);
        }
    });
    db.fs.fail(Fault::io_error(room, crate::io::sim::Times::Once));
    db.put(2, 10, Durability::Local).unwrap();
    let fs = db.fs.crashed_image(CrashMode::DropAll, 0);
    let engine = Db::open(&fs, &db.keys, 2).unwrap();
    let keyspace = engine.tenant("t").unwrap().keyspace("k").unwrap();
    assert_eq!(keyspace.get(2u64.to_be_bytes()).unwrap().unwrap().len(), 10);
}
