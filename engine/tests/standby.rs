//! What a standby may and may not believe of the log it was sent, on the simulated disk.
//!
//! Story: records carry their primary's durable watermark. A standby that read it as its own called its
//! torn tail damage (43 of 300 random power cuts left it unable to open), and after a failed sync did not
//! rewrite what the disk had dropped, acknowledged it, and lost it at the next power cut.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom::io::Io;
use strongroom::io::sim::{CrashMode, Fault, SimFs, Times};
use strongroom::keys::{KeyProvider, MemoryKeys};
use strongroom::*;

fn open(fs: &SimFs, dir: &str, keys: &MemoryKeys, role: Role, seed: u64) -> Result<Engine> {
    Engine::builder(dir)
        .shared_keys(Arc::new(keys.clone()))
        .options(Options::tiny())
        .role(role)
        .io(fs.io(seed))
        .open()
}

/// Keyspace "k" of a new tenant "t".
fn keyspace(p: &Engine) -> Keyspace {
    let tenant = p.create_tenant("t", TenantOptions::default()).unwrap();
    tenant.keyspace("k").unwrap()
}

fn base_copy(p: &Engine, io_src: &Io, to_fs: &SimFs, keys: &MemoryKeys, seed: u64) -> Lsn {
    let at = p.checkpoint("/copy").unwrap().position.lsn;
    let provider: Arc<dyn KeyProvider> = Arc::new(keys.clone());
    let mut r = BaseCopyReceiver::start("/sb", to_fs.io(seed), provider).unwrap();
    r.keys(&p.key_changes(0)).unwrap();
    for (name, len) in checkpoint_files("/copy", io_src).unwrap() {
        let f = io_src.vfs.open(&Path::new("/copy").join(&name)).unwrap();
        let mut b = vec![0; len as usize];
        f.read_exact_at(&mut b, 0).unwrap();
        r.chunk(&name, 0, &b).unwrap();
    }
    r.finish().unwrap();
    at
}

#[test]
fn power_cut_on_a_standby_leaves_a_torn_tail_and_never_damage() {
    let fs = SimFs::new();
    let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
    let p = open(&fs, "/p", &pk, Role::Primary, 1).unwrap();
    let t = p.create_tenant("t", TenantOptions::default()).unwrap();
    let k = t.keyspace("k").unwrap();
    let sfs = SimFs::new();
    let io = fs.io(2);
    let pin = p.pin_wal(Lsn(0));
    let start = base_copy(&p, &io, &sfs, &sk, 3);
    let s = open(&sfs, "/sb", &sk, Role::Standby, 4).unwrap();
    for i in 0..8 {
        k.put(format!("{i}"), vec![7u8; 700]).unwrap();
    }
    let end = p.status().durable;
    let mut c = p.wal_cursor(start).unwrap();
    let mut wal = Vec::new();
    while c.position() < end {
        wal.extend_from_slice(&c.read(1 << 20, Duration::from_secs(1)).unwrap());
    }
    drop(pin);
    // Received, never synced on the standby, nothing acknowledged of it.
    s.standby_append(start, &wal).unwrap();
    for seed in 0..300 {
        let image = sfs.crashed_image(CrashMode::KeepRandom, seed);
        let reopened = open(&image, "/sb", &sk, Role::Standby, 1000 + seed);
        assert!(reopened.is_ok(), "seed {seed}: {:?}", reopened.err());
    }
}

#[test]
fn what_a_standby_acknowledges_after_a_failed_sync_survives_a_power_cut() {
    let fs = SimFs::new();
    let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
    let p = open(&fs, "/p", &pk, Role::Primary, 61).unwrap();
    let t = p.create_tenant("t", TenantOptions::default()).unwrap();
    let k = t.keyspace("k").unwrap();
    let sfs = SimFs::new();
    let pin = p.pin_wal(Lsn(0));
    let start = base_copy(&p, &fs.io(62), &sfs, &sk, 63);
    for i in 0..8 {
        k.put(format!("{i}"), vec![7u8; 700]).unwrap();
    }
    let end = p.status().durable;
    let mut c = p.wal_cursor(start).unwrap();
    let mut wal = Vec::new();
    while c.position() < end {
        wal.extend_from_slice(&c.read(1 << 20, Duration::from_secs(1)).unwrap());
    }
    drop(pin);
    let s = open(&sfs, "/sb", &sk, Role::Standby, 64).unwrap();
    s.standby_append(start, &wal).unwrap();
    sfs.fail(Fault::io_error(sfs.ops() + 1, Times::Once));
    assert!(
        s.standby_sync().is_err(),
        "the sync failed, nothing may be acknowledged"
    );
    sfs.clear_faults();
    drop(s);
    let s = open(&sfs, "/sb", &sk, Role::Standby, 65).unwrap();
    let told = s.standby_sync().unwrap();
    drop(s);
    let image = sfs.crashed_image(CrashMode::DropAll, 0);
    let s = open(&image, "/sb", &sk, Role::Standby, 66).unwrap();
    assert!(s.standby_progress().unwrap().durable >= told.durable);
}

#[test]
fn an_older_keystore_put_back_refuses_to_open() {
    let fs = SimFs::new();
    let keys = MemoryKeys::new();
    let p = open(&fs, "/p", &keys, Role::Primary, 25).unwrap();
    p.create_tenant("a", TenantOptions::default()).unwrap();
    p.close().unwrap();
    drop(p);
    let old: BTreeMap<_, _> = fs
        .files()
        .into_iter()
        .filter(|(p, _)| p.starts_with("/p/keystore"))
        .collect();
    let p = open(&fs, "/p", &keys, Role::Primary, 26).unwrap();
    let b = p.create_tenant("b", TenantOptions::default()).unwrap();
    b.keyspace("k").unwrap().put("y", "2").unwrap();
    p.close().unwrap();
    drop((b, p));
    let now: Vec<_> = fs
        .files()
        .into_keys()
        .filter(|p| p.starts_with("/p/keystore"))
        .collect();
    for f in &now {
        fs.lose(f);
    }
    let io = fs.io(27);
    for (path, bytes) in &old {
        let f = io.vfs.create(path).unwrap();
        f.write_all_at(bytes, 0).unwrap();
        f.sync().unwrap();
    }
    let refused = open(&fs, "/p", &keys, Role::Primary, 28).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Corruption);
    assert!(refused.path().is_some());
}

#[test]
fn a_directory_that_follows_does_not_open_as_primary() {
    let fs = SimFs::new();
    let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
    let p = open(&fs, "/p", &pk, Role::Primary, 71).unwrap();
    let sfs = SimFs::new();
    let pin = p.pin_wal(Lsn(0));
    let start = base_copy(&p, &fs.io(72), &sfs, &sk, 73);
    p.create_tenant("t", TenantOptions::default()).unwrap();
    p.system().keyspace("k").unwrap();
    let s = open(&sfs, "/sb", &sk, Role::Standby, 74).unwrap();
    s.apply_key_changes(&p.key_changes(0)).unwrap();
    let bytes = p
        .wal_cursor(start)
        .unwrap()
        .read(1 << 20, Duration::from_secs(1))
        .unwrap();
    s.standby_append(start, &bytes).unwrap();
    s.standby_sync().unwrap();
    s.close().unwrap();
    drop((s, pin));
    let refused = open(&sfs, "/sb", &sk, Role::Primary, 75).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::NotPrimary);
    let s = open(&sfs, "/sb", &sk, Role::Standby, 76).unwrap();
    s.promote().unwrap();
    s.close().unwrap();
    drop(s);
    open(&sfs, "/sb", &sk, Role::Primary, 77).unwrap();
}

/// An append may come between a sync and the look at its outcome: position, reign and chain must be of one place.
#[test]
fn chain_that_a_standby_tells_is_the_one_at_its_durable_position() {
    let fs = SimFs::new();
    let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
    let p = open(&fs, "/p", &pk, Role::Primary, 61).unwrap();
    let k = keyspace(&p);
    let sfs = SimFs::new();
    let pin = p.pin_wal(Lsn(0));
    let start = base_copy(&p, &fs.io(62), &sfs, &sk, 63);
    let s = open(&sfs, "/sb", &sk, Role::Standby, 64).unwrap();
    let mut cursor = p.wal_cursor(start).unwrap();
    let mut told = Vec::new();
    for i in 0..6 {
        k.put(format!("{i}"), "v").unwrap();
        let first = cursor.position();
        let bytes = cursor.read(1 << 20, Duration::ZERO).unwrap();
        s.standby_append(first, &bytes).unwrap();
        if i % 2 == 0 {
            told.push(s.standby_sync().unwrap());
        } else {
            told.push(s.standby_progress().unwrap());
        }
    }
    assert!(
        told.iter().any(|t| t.durable < t.received),
        "nothing was only received"
    );
    for progress in told {
        assert_eq!(progress.chain, p.chain_at(progress.durable).unwrap());
        assert!(progress.applied <= progress.durable);
    }
    drop(pin);
}

#[test]
fn base_copy_begun_again_destroys_the_key_of_the_one_before() {
    let fs = SimFs::new();
    let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
    let p = open(&fs, "/p", &pk, Role::Primary, 71).unwrap();
    p.create_tenant("t", TenantOptions::default()).unwrap();
    let sfs = SimFs::new();
    let provider: Arc<dyn KeyProvider> = Arc::new(sk.clone());
    let mut cut_short = BaseCopyReceiver::start("/sb", sfs.io(72), provider).unwrap();
    cut_short.keys(&p.key_changes(0)).unwrap();
    drop(cut_short);
    let stolen = sfs.fork();
    base_copy(&p, &fs.io(73), &sfs, &sk, 74);
    open(&sfs, "/sb", &sk, Role::Standby, 75).unwrap();
    // The keystore of the first attempt, as a thief has it, beside the rest of a good database.
    for (path, bytes) in stolen.files() {
        if path.starts_with("/sb/keystore") && sfs.content(&path).is_some() {
            sfs.corrupt(&path, |now| *now = bytes);
        }
    }
    let refused = open(&sfs, "/sb", &sk, Role::Standby, 76).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyRefused, "{refused:?}");
}

/// A promotion whose epoch became durable and which then failed has a reign without a byte. The primary it was to
/// replace goes on, in an epoch below, and is followed: keeping that reign in the history, with records of an older
/// one behind its beginning, cost a base copy later.
#[test]
fn promotion_cut_short_then_the_primary_that_goes_on_is_followed_where_the_empty_reign_began() {
    let mut cut_short = 0;
    for (operation, reopened) in (1..12).flat_map(|n| [(n, false), (n, true)]) {
        let fs = SimFs::new();
        let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
        let mut p = open(&fs, "/p", &pk, Role::Primary, 81).unwrap();
        let k = keyspace(&p);
        k.put("old", "1").unwrap();
        drop(k);
        let sfs = SimFs::new();
        let pin = p.pin_wal(Lsn(0));
        let start = base_copy(&p, &fs.io(82), &sfs, &sk, 83);
        let s = open(&sfs, "/sb", &sk, Role::Standby, 84).unwrap();
        p.system().keyspace("more").unwrap();
        follow(&p, &s, start);

        sfs.fail(Fault::io_error(sfs.ops() + operation, Times::Once));
        let promoted = s.promote();
        sfs.clear_faults();
        if promoted.is_ok() {
            continue;
        }
        // Nothing is taken as if nothing had happened where the outcome is open.
        let known = s.status().highest_epoch;
        drop(s);
        let s = open(&sfs, "/sb", &sk, Role::Standby, 85).unwrap();
        let taken = s.status().highest_epoch;
        assert!(taken >= known);
        if s.standby_progress().unwrap().epoch > Epoch::FIRST {
            // The new reign has its segment: this log is another one now.
            continue;
        }
        cut_short += u64::from(taken > Epoch::FIRST);

        if reopened {
            drop(pin);
            p.close().unwrap();
            drop(p);
            p = open(&fs, "/p", &pk, Role::Primary, 86).unwrap();
        }
        let k = p.tenant("t").unwrap().open_keyspace("k").unwrap();
        k.put("new", "2").unwrap();
        let behind = s.standby_progress().unwrap().durable;
        follow(&p, &s, behind);
        assert_eq!(s.epoch_history(), p.epoch_history(), "operation {operation}");
        assert_eq!(
            s.status().highest_epoch,
            taken.max(p.status().epoch),
            "recorded stays"
        );
        drop(s);
        let s = open(&sfs, "/sb", &sk, Role::Standby, 87).unwrap();
        assert_eq!(
            s.epoch_history(),
            p.epoch_history(),
            "operation {operation}, reopened"
        );
        let k = s.tenant("t").unwrap().open_keyspace("k").unwrap();
        assert_eq!(k.get("new").unwrap().as_deref(), Some(&b"2"[..]));
    }
    assert!(cut_short > 0, "no operation left a promotion half done");
}

/// A promotion of which nobody knows whether it became durable: the standby took more of the old reign, and after a
/// restart its history had the new one beginning in the middle of that.
#[test]
fn promotion_whose_outcome_is_open_then_nothing_is_taken_until_the_standby_is_reopened() {
    let mut open_outcomes = 0;
    for operation in 1..12 {
        let fs = SimFs::new();
        let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
        let p = open(&fs, "/p", &pk, Role::Primary, 91).unwrap();
        let k = keyspace(&p);
        let sfs = SimFs::new();
        let _pin = p.pin_wal(Lsn(0));
        let start = base_copy(&p, &fs.io(92), &sfs, &sk, 93);
        let s = open(&sfs, "/sb", &sk, Role::Standby, 94).unwrap();
        k.put("z", "0").unwrap();
        follow(&p, &s, start);
        sfs.fail(Fault::io_error(sfs.ops() + operation, Times::Once));
        let promoted = s.promote();
        sfs.clear_faults();
        let highest = s.status().highest_epoch;
        if promoted.is_ok() || highest > Epoch::FIRST {
            continue;
        }
        k.put("a", "1").unwrap();
        let at = s.standby_progress().unwrap().durable;
        let bytes = p
            .wal_cursor(at)
            .unwrap()
            .read(1 << 20, Duration::from_secs(1))
            .unwrap();
        let taken = s.standby_append(at, &bytes).and_then(|_| s.standby_sync());
        drop(s);
        let s = open(&sfs, "/sb", &sk, Role::Standby, 95).unwrap();
        if s.status().highest_epoch > Epoch::FIRST {
            open_outcomes += 1;
            let error = taken.expect_err("bytes of the old reign behind a promotion");
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "operation {operation}");
        }
    }
    assert!(open_outcomes > 0, "no operation left the outcome open");
}

/// A promotion that failed behind its edit left a standby whose manifest said that it serves, and which went on
/// following: recovery took its primary's watermarks for its own, and it would have opened as a primary.
#[test]
fn promotion_that_failed_behind_its_edit_leaves_a_standby_that_follows_and_opens_as_nothing_else() {
    let mut cut_short = 0;
    for operation in 1..12 {
        let fs = SimFs::new();
        let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
        let p = open(&fs, "/p", &pk, Role::Primary, 101).unwrap();
        let k = keyspace(&p);
        let sfs = SimFs::new();
        let _pin = p.pin_wal(Lsn(0));
        let start = base_copy(&p, &fs.io(102), &sfs, &sk, 103);
        let s = open(&sfs, "/sb", &sk, Role::Standby, 104).unwrap();
        k.put("old", "1").unwrap();
        follow(&p, &s, start);
        sfs.fail(Fault::io_error(sfs.ops() + operation, Times::Once));
        let promoted = s.promote();
        sfs.clear_faults();
        // A failed sync ends it until it is reopened.
        if promoted.is_ok() || s.status().read_only.is_some() || s.status().highest_epoch == Epoch::FIRST {
            continue;
        }
        cut_short += 1;
        k.put("new", "2").unwrap();
        let behind = s.standby_progress().unwrap().durable;
        follow(&p, &s, behind);
        drop(s);
        let opened = open(&sfs, "/sb", &sk, Role::Primary, 105).map(drop);
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotPrimary, "{operation}");
        let s = open(&sfs, "/sb", &sk, Role::Standby, 106).unwrap();
        let k = s.tenant("t").unwrap().open_keyspace("k").unwrap();
        assert_eq!(k.get("new").unwrap().as_deref(), Some(&b"2"[..]), "{operation}");
    }
    assert!(
        cut_short > 0,
        "no operation left a promotion half done and the log going on"
    );
}

/// What a standby has received and not applied is not in what it flushes, nor in the version that is recorded with it.
#[test]
fn standby_that_flushed_between_receiving_and_applying_shows_after_a_power_cut_what_it_had_applied() {
    let fs = SimFs::new();
    let (pk, sk) = (MemoryKeys::new(), MemoryKeys::new());
    let p = open(&fs, "/p", &pk, Role::Primary, 111).unwrap();
    let k = keyspace(&p);
    let sfs = SimFs::new();
    let _pin = p.pin_wal(Lsn(0));
    let start = base_copy(&p, &fs.io(112), &sfs, &sk, 113);
    let s = open(&sfs, "/sb", &sk, Role::Standby, 114).unwrap();
    k.put("applied", "1").unwrap();
    follow(&p, &s, start);
    let (at, applied) = (s.standby_progress().unwrap().durable, s.stats().visible);
    k.put("received", "2").unwrap();
    let mut cursor = p.wal_cursor(at).unwrap();
    let bytes = cursor.read(1 << 20, Duration::from_secs(1)).unwrap();
    s.standby_append(at, &bytes).unwrap();
    s.flush().unwrap();
    let image = sfs.crashed_image(CrashMode::DropAll, 1);
    let reopened = open(&image, "/sb", &sk, Role::Standby, 115).unwrap();
    assert_eq!(reopened.standby_progress().unwrap().applied, at);
    assert_eq!(reopened.stats().visible, applied);
    let k = reopened.tenant("t").unwrap().open_keyspace("k").unwrap();
    assert_eq!(k.get("received").unwrap(), None);
}

/// Appends, syncs and applies what the primary has behind `at`.
fn follow(p: &Engine, s: &Engine, at: Lsn) {
    s.apply_key_changes(&p.key_changes(0)).unwrap();
    let mut cursor = p.wal_cursor(at).unwrap();
    while cursor.position() < p.status().durable {
        let first = cursor.position();
        let bytes = cursor.read(1 << 20, Duration::from_secs(1)).unwrap();
        s.standby_append(first, &bytes).unwrap();
    }
    s.standby_sync().unwrap();
}
