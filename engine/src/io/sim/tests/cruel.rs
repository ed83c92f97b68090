//! Manners that are switched on, misdeeds and bad sectors.

use super::*;
use std::sync::mpsc;

fn kinds(strikes: &[Strike]) -> Vec<&'static str> {
    strikes.iter().map(|s| s.what).collect()
}

#[test]
fn bad_sector_fails_reads_that_touch_it_until_cleared() {
    let (fs, file) = disk_with(&[7; 2000]);
    assert!(fs.spoil(F, 512..1024));
    assert!(!fs.spoil("/d/none", 0..1));
    let read = |offset, len| file.read_exact_at(&mut vec![0; len], offset);
    read(0, 512).unwrap();
    read(1024, 976).unwrap();
    for _ in 0..2 {
        assert_eq!(read(1000, 100).unwrap_err().kind(), io::ErrorKind::Other);
    }
    file.write_all_at(&[8; 100], 600).unwrap();
    fs.clear_faults();
    read(0, 2000).unwrap();
    assert_eq!(kinds(&fs.take_strikes()), ["bad sector", "bad sector"]);
    assert!(fs.take_strikes().is_empty());
}

#[test]
fn late_allocation_finds_the_disk_full_at_the_sync_and_loses_the_bytes() {
    let (fs, file) = disk_with(b"old");
    fs.set_late_allocation(true);
    fs.set_capacity(Some(5));
    file.write_all_at(b"new and longer", 0).unwrap();
    assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.content(F).unwrap(), b"new and longer");
    assert_eq!(kept(&fs).content(F).unwrap(), b"old");
    assert_eq!(kinds(&fs.take_strikes()), ["ENOSPC"]);
    file.set_len(3).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), b"abc");
}

#[test]
fn calls_that_need_a_handle_fail_when_there_are_too_many() {
    let (fs, file) = disk_with(b"x");
    fs.set_handles_max(Some(2));
    let other = fs.create(path("/d/g")).unwrap();
    let error = |r: io::Result<()>| r.unwrap_err().raw_os_error();
    assert_eq!(error(fs.open(path(F)).map(drop)), Some(24));
    assert_eq!(error(fs.create(path("/d/h")).map(drop)), Some(24));
    assert_eq!(error(fs.lock(path("/d/lock")).map(drop)), Some(24));
    assert_eq!(error(fs.sync_dir(path("/d"))), Some(24));
    assert_eq!(error(fs.list(path("/d")).map(drop)), Some(24));
    assert!(fs.exists(path("/d/g")).unwrap());
    assert!(!fs.exists(path("/d/h")).unwrap());
    file.sync().unwrap();
    assert_eq!(fs.open_handles(), 2);
    drop(other);
    let lock = fs.lock(path("/d/lock")).unwrap();
    assert!(fs.open(path(F)).is_err());
    drop(lock);
    fs.open(path(F)).unwrap();
    assert_eq!((fs.open_handles(), fs.held_locks()), (1, 0));
}

#[test]
fn sync_hangs_until_the_test_lets_it_go_on_and_reads_do_not_wait() {
    let (fs, file) = disk_with(b"old");
    let (told, hangs) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (told, released) = (Mutex::new(told), Mutex::new(released));
    fs.before_syncs(move |op| {
        told.lock().send(op.path.clone()).unwrap();
        released.lock().recv().unwrap();
    });
    file.write_all_at(b"new", 0).unwrap();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync());
        assert_eq!(hangs.recv().unwrap(), path(F));
        assert_eq!(fs.content(F).unwrap(), b"new");
        assert_eq!(dropped(&fs).content(F).unwrap(), b"old", "not synced yet");
        release.send(()).unwrap();
        sync.join().unwrap().unwrap();
    });
    assert_eq!(dropped(&fs).content(F).unwrap(), b"new");
}

#[test]
fn lost_write_returns_ok_and_is_in_the_file_neither_now_nor_after_a_sync() {
    let (fs, file) = disk_with(b"old");
    fs.misdo(fs.ops() + 1, Misdeed::LoseWrite);
    file.write_all_at(b"new!", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(fs.content(F).unwrap(), b"old\0");
    assert_eq!(kept(&fs).content(F).unwrap(), b"old\0");
    file.write_all_at(b"new!", 0).unwrap();
    assert_eq!(fs.content(F).unwrap(), b"new!", "once");
    assert_eq!(kinds(&fs.take_strikes()), ["lost write"]);
}

#[test]
fn misplaced_write_lands_sectors_before_its_place() {
    let (fs, file) = disk_with(&[0; 2048]);
    fs.misdo(0, Misdeed::MisplaceWrite { sectors: 2 });
    file.write_all_at(&[1; 512], 1536).unwrap();
    file.sync().unwrap();
    let content = dropped(&fs).content(F).unwrap();
    assert_eq!(content[512..1024], [1; 512]);
    assert_eq!(content[1536..], [0; 512]);
}

#[test]
fn write_that_lands_in_another_file_spares_its_own() {
    let (fs, file) = disk_with(b"old");
    fs.create(path("/d/g"))
        .unwrap()
        .write_all_at(b"other", 0)
        .unwrap();
    fs.misdo(0, Misdeed::WriteElsewhere);
    file.write_all_at(b"new", 0).unwrap();
    assert_eq!(fs.content(F).unwrap(), b"old");
    assert_eq!(fs.content("/d/g").unwrap(), b"newer");
}

#[test]
fn flipped_bit_is_written_for_good_or_read_once() {
    let (fs, file) = disk_with(&[0; 4]);
    fs.misdo(0, Misdeed::FlipInWrite { bit: 9 });
    fs.misdo(0, Misdeed::FlipInRead { bit: 0 });
    let mut buf = [0; 4];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [1, 0, 0, 0]);
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [0; 4]);
    file.write_all_at(&[0; 4], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), [0, 2, 0, 0]);
    assert_eq!(kinds(&fs.take_strikes()), ["flip in a read", "flip in a write"]);
}

#[test]
fn syncing_a_file_keeps_names_where_the_journal_is_one() {
    let fs = disk();
    fs.set_names_with_files(true);
    let file = fs.create(path(F)).unwrap();
    fs.create(path("/d/g")).unwrap();
    assert_eq!(dropped(&fs).files().len(), 0);
    file.sync().unwrap();
    assert_eq!(dropped(&fs).files().len(), 2);
    fs.rename(path("/d/g"), path("/d/h")).unwrap();
    assert!(dropped(&fs).content("/d/g").is_some());
    file.sync().unwrap();
    assert!(dropped(&fs).content("/d/h").is_some());
}

#[test]
fn file_system_without_links_makes_none() {
    let (fs, _) = disk_with(b"x");
    fs.set_no_links(true);
    let refused = fs.hard_link(path(F), path("/d/g")).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    assert!(!fs.exists(path("/d/g")).unwrap());
}

#[test]
fn weak_rename_may_leave_both_names_or_change_neither() {
    let (fs, _) = disk_with(b"old");
    let tmp = fs.create(path("/d/f.tmp")).unwrap();
    tmp.write_all_at(b"new", 0).unwrap();
    tmp.sync().unwrap();
    fs.sync_dir(path("/d")).unwrap();
    fs.set_weak_renames(true);
    fs.rename(path("/d/f.tmp"), path(F)).unwrap();
    let mut seen = BTreeSet::new();
    for image in random(&fs, 200) {
        let both = (image.content(F).unwrap(), image.content("/d/f.tmp"));
        seen.insert((both.0, both.1.is_some()));
    }
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    assert_eq!(
        seen,
        BTreeSet::from([(old, true), (new.clone(), true), (new, false)])
    );
    fs.sync_dir(path("/d")).unwrap();
    assert!(random(&fs, 50).all(|image| image.content("/d/f.tmp").is_none()));
}

#[test]
fn faults_that_strike_are_noted_with_their_call_and_path() {
    let (fs, file) = disk_with(b"");
    fs.fail(Fault::io_error(fs.ops() + 1, Times::Once));
    fs.fail(Fault::disk_full(fs.ops() + 2, Times::Once));
    assert!(file.sync().is_err());
    assert!(file.write_all_at(b"x", 0).is_err());
    fs.fail(Fault::read_error(fs.reads() + 1, Times::Once));
    assert!(file.len().is_err());
    let strikes = fs.take_strikes();
    assert_eq!(kinds(&strikes), ["EIO", "ENOSPC", "EIO"]);
    assert_eq!(strikes[0].op, Some(OpKind::Sync));
    assert_eq!(strikes[2].op, None);
    assert!(strikes.iter().all(|s| s.path == path(F)));
}
