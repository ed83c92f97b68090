//! Each rule of the simulated file system, by itself.

mod cruel;

use super::image::Content;
use super::*;
use crate::io::{Clock, File, Vfs};
use std::time::Duration;

const F: &str = "/d/f";

fn path(p: &str) -> &Path {
    Path::new(p)
}

/// `/d` durable.
fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(path("/d")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs
}

/// `/d/f` durable with `content`.
fn disk_with(content: &[u8]) -> (SimFs, Arc<dyn File>) {
    let fs = disk();
    let file = fs.create(path(F)).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(path("/d")).unwrap();
    (fs, file)
}

fn dropped(fs: &SimFs) -> SimFs {
    fs.crashed_image(CrashMode::DropAll, 0)
}

fn kept(fs: &SimFs) -> SimFs {
    fs.crashed_image(CrashMode::KeepAll, 0)
}

fn random(fs: &SimFs, seeds: u64) -> impl Iterator<Item = SimFs> {
    (0..seeds).map(|seed| fs.crashed_image(CrashMode::KeepRandom, seed))
}

#[test]
fn unsynced_bytes_are_lost_or_kept_by_mode() {
    let (fs, file) = disk_with(b"old");
    file.write_all_at(b"new and longer", 0).unwrap();
    assert_eq!(fs.content(F).unwrap(), b"new and longer");
    assert_eq!(dropped(&fs).content(F).unwrap(), b"old");
    assert_eq!(kept(&fs).content(F).unwrap(), b"new and longer");
    file.sync().unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), b"new and longer");
}

#[test]
fn synced_file_without_synced_directory_has_no_name() {
    let fs = disk();
    let file = fs.create(path(F)).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(dropped(&fs).content(F), None);
    assert_eq!(kept(&fs).content(F).unwrap(), b"x");
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), b"x");
}

#[test]
fn name_without_synced_bytes_is_an_empty_file() {
    let fs = disk();
    fs.create(path(F)).unwrap().write_all_at(b"x", 0).unwrap();
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), b"");
}

#[test]
fn unsynced_directory_goes_with_all_below_it() {
    let fs = disk();
    fs.create_dir_all(path("/d/e")).unwrap();
    let file = fs.create(path("/d/e/f")).unwrap();
    file.sync().unwrap();
    fs.sync_dir(path("/d/e")).unwrap();
    assert!(!dropped(&fs).exists(path("/d/e")).unwrap());
    fs.sync_dir(path("/d")).unwrap();
    assert!(dropped(&fs).exists(path("/d/e/f")).unwrap());
}

#[test]
fn removal_is_undone_by_a_crash_until_synced() {
    let (fs, _) = disk_with(b"x");
    fs.remove_file(path(F)).unwrap();
    assert_eq!(fs.content(F), None);
    assert_eq!(dropped(&fs).content(F).unwrap(), b"x");
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(dropped(&fs).content(F), None);
}

#[test]
fn rename_leaves_the_old_file_or_the_new_one() {
    let (fs, _) = disk_with(b"old");
    let tmp = fs.create(path("/d/f.tmp")).unwrap();
    tmp.write_all_at(b"new", 0).unwrap();
    tmp.sync().unwrap();
    fs.rename(path("/d/f.tmp"), path(F)).unwrap();
    assert_eq!(fs.content(F).unwrap(), b"new");
    assert_eq!(dropped(&fs).content(F).unwrap(), b"old");
    let mut seen = BTreeSet::new();
    for image in random(&fs, 200) {
        seen.insert(image.content(F).unwrap());
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), b"new");
    assert_eq!(dropped(&fs).files().len(), 1);
}

#[test]
fn rename_before_the_sync_of_bytes_may_leave_an_empty_file() {
    let (fs, _) = disk_with(b"old");
    fs.create(path("/d/f.tmp"))
        .unwrap()
        .write_all_at(b"new", 0)
        .unwrap();
    fs.rename(path("/d/f.tmp"), path(F)).unwrap();
    assert!(
        random(&fs, 200)
            .any(|image| image.content(F).unwrap() != b"old" && image.content(F).unwrap() != b"new")
    );
}

#[test]
fn move_between_directories_is_whole_and_certain_when_both_are_synced() {
    let (fs, _) = disk_with(b"x");
    fs.create_dir_all(path("/e")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.rename(path(F), path("/e/g")).unwrap();
    let one_place = |image: SimFs| {
        let places = [image.content(F), image.content("/e/g")];
        assert_eq!(places.iter().flatten().count(), 1);
        places[1].is_some()
    };
    let moved = random(&fs, 100).filter(|image| one_place(image.clone())).count();
    assert!((1..100).contains(&moved));
    fs.sync_dir(path("/d")).unwrap();
    assert!(!one_place(dropped(&fs)));
    fs.sync_dir(path("/e")).unwrap();
    assert!(one_place(dropped(&fs)));
}

#[test]
fn open_file_survives_removal_and_renaming() {
    let (fs, file) = disk_with(b"x");
    fs.rename(path(F), path("/d/g")).unwrap();
    file.write_all_at(b"y", 0).unwrap();
    assert_eq!(fs.content("/d/g").unwrap(), b"y");
    fs.remove_file(path("/d/g")).unwrap();
    fs.sync_dir(path("/d")).unwrap();
    let mut buf = [0];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"y");
    drop(file);
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(fs.used(), 0);
}

#[test]
fn sectors_of_one_write_are_kept_independently() {
    let (fs, file) = disk_with(&[0; 2048]);
    file.write_all_at(&[1; 2048], 0).unwrap();
    let mut patterns = BTreeSet::new();
    for image in random(&fs, 300) {
        let content = image.content(F).unwrap();
        patterns.insert([content[0], content[512], content[1024], content[1536]]);
        for sector in content.chunks(512) {
            let ones = sector.iter().take_while(|b| **b == 1).count();
            assert!(
                sector[ones..].iter().all(|b| *b == 0),
                "torn otherwise than from the front"
            );
        }
    }
    assert!(patterns.len() > 8, "{patterns:?}");
}

#[test]
fn newer_bytes_of_a_sector_do_not_survive_older_ones() {
    let (fs, file) = disk_with(&[0; 512]);
    file.write_all_at(&[1; 100], 0).unwrap();
    file.write_all_at(&[2; 100], 100).unwrap();
    for image in random(&fs, 300) {
        let content = image.content(F).unwrap();
        assert!(content[100] == 0 || content[99] == 1);
    }
}

#[test]
fn length_and_bytes_have_separate_fates() {
    let (fs, file) = disk_with(b"");
    file.write_all_at(&[1; 1024], 0).unwrap();
    let images: Vec<Vec<u8>> = random(&fs, 500).map(|i| i.content(F).unwrap()).collect();
    assert!(images.iter().any(|c| c.is_empty()));
    assert!(
        images
            .iter()
            .any(|c| c.len() == 1024 && c.iter().all(|b| *b == 0)),
        "zeros"
    );
    assert!(
        images.iter().any(|c| c.len() == 1024 && c.iter().any(|b| *b > 1)),
        "garbage"
    );
    assert!(images.iter().any(|c| *c == [1; 1024]));
}

#[test]
fn bytes_cut_off_do_not_come_back() {
    let (fs, file) = disk_with(&[1; 1024]);
    file.set_len(100).unwrap();
    file.set_len(1024).unwrap();
    assert_eq!(fs.content(F).unwrap()[100..], [0; 924]);
    file.write_all_at(&[2; 10], 200).unwrap();
    for image in random(&fs, 300) {
        let content = image.content(F).unwrap();
        assert!(
            content == [1; 1024] || content[100..].iter().take(100).all(|b| *b == 0),
            "{}",
            content.len()
        );
        assert!(content.len() == 100 || content.len() == 1024);
    }
}

#[test]
fn failed_sync_stays_readable_and_is_lost_by_the_crash() {
    let (fs, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    fs.fail(Fault::io_error(fs.ops() + 1, Times::Once));
    assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::Other);
    file.write_all_at(b"!", 5).unwrap();
    file.sync().unwrap();
    assert_eq!(fs.content(F).unwrap(), b"new\0\0!");
    for mode in [CrashMode::DropAll, CrashMode::KeepAll] {
        assert_eq!(fs.crashed_image(mode, 0).content(F).unwrap(), b"old\0\0!");
    }
}

#[test]
fn machine_that_is_off_fails_every_call_and_keeps_half_a_write() {
    let (fs, file) = disk_with(b"old");
    fs.crash_at(fs.ops() + 2, true);
    file.write_all_at(b"1", 3).unwrap();
    assert!(!fs.crashed());
    assert!(file.write_all_at(b"abcd", 4).is_err());
    assert!(fs.crashed());
    assert!(file.sync().is_err());
    assert!(fs.exists(path(F)).is_err());
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert_eq!(kept(&fs).content(F).unwrap(), b"old1ab");
    assert_eq!(dropped(&fs).content(F).unwrap(), b"old");
    assert!(kept(&fs).exists(path(F)).unwrap(), "the image is on");
}

#[test]
fn faults_strike_their_operation_once_or_from_then_on() {
    let (fs, file) = disk_with(b"");
    let at = fs.ops();
    fs.fail(Fault::io_error(at + 2, Times::Once));
    fs.fail(Fault::disk_full(at + 4, Times::Forever));
    file.write_all_at(b"1", 0).unwrap();
    assert_eq!(
        file.write_all_at(b"2", 1).unwrap_err().kind(),
        io::ErrorKind::Other
    );
    file.write_all_at(b"2", 1).unwrap();
    assert_eq!(
        file.write_all_at(b"3344", 2).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert!(fs.create(path("/d/g")).is_err());
    file.sync().unwrap();
    fs.remove_file(path(F)).unwrap();
    assert_eq!(file.len().unwrap(), 4, "half of the last write");
    fs.fail(Fault::read_error(fs.reads() + 1, Times::Once));
    assert!(file.len().is_err());
    fs.clear_faults();
    file.write_all_at(b"4", 3).unwrap();
}

#[test]
fn descriptors_run_out_for_calls_that_open_only() {
    let (fs, file) = disk_with(b"x");
    fs.fail(Fault::no_descriptor(fs.opens() + 2, Times::Forever));
    fs.open(path(F)).unwrap();
    assert!(fs.open(path(F)).is_err());
    assert!(fs.create(path("/d/g")).is_err());
    assert!(fs.list(path("/d")).is_err());
    file.write_all_at(b"y", 0).unwrap();
    assert_eq!(file.len().unwrap(), 1);
    fs.clear_faults();
    fs.create(path("/d/g")).unwrap();
}

#[test]
fn full_disk_takes_what_fits_and_recovers_by_removal() {
    let (fs, file) = disk_with(b"1234");
    fs.set_capacity(Some(6));
    assert_eq!(
        file.write_all_at(b"5678", 4).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(fs.content(F).unwrap(), b"123456");
    assert!(file.set_len(7).is_err());
    file.write_all_at(b"x", 0).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(b"abcdef", 0).unwrap();
}

#[test]
fn fork_is_independent_and_its_probe_sees_the_moment_before() {
    let (fs, file) = disk_with(b"0");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    fs.probe(move |op, fork| {
        keep.lock()
            .push((op.number, op.kind, fork.content(F), dropped(fork).content(F)))
    });
    let first = fs.ops() + 1;
    file.write_all_at(b"1", 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(b"2", 0).unwrap();
    fs.clear_probe();
    let expected = [
        (first, OpKind::Write, Some(b"0".to_vec()), Some(b"0".to_vec())),
        (first + 1, OpKind::Sync, Some(b"1".to_vec()), Some(b"0".to_vec())),
        (first + 2, OpKind::Write, Some(b"1".to_vec()), Some(b"1".to_vec())),
    ];
    assert_eq!(*seen.lock(), expected);
    let fork = fs.fork();
    assert_eq!(fork.unsynced(), 1);
    assert_eq!(fork.digest(), fs.digest());
    fork.open_rw(path(F)).unwrap().write_all_at(b"fork", 0).unwrap();
    assert_eq!(fs.content(F).unwrap(), b"2");
    assert_ne!(fork.digest(), fs.digest());
}

#[test]
fn sync_that_lies_returns_ok_and_keeps_nothing() {
    let (fs, file) = disk_with(b"old");
    fs.lie_about_syncs(|op| op.kind == OpKind::Sync && op.path == path(F));
    file.write_all_at(b"new", 0).unwrap();
    file.sync().unwrap();
    fs.create(path("/d/g")).unwrap();
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(dropped(&fs).content(F).unwrap(), b"old");
    assert!(dropped(&fs).exists(path("/d/g")).unwrap());
}

#[test]
fn lock_is_exclusive_until_dropped_and_gone_after_a_crash() {
    let fs = disk();
    let held = fs.lock(path("/d/lock")).unwrap();
    assert_eq!(
        fs.lock(path("/d/./lock")).err().unwrap().kind(),
        io::ErrorKind::WouldBlock
    );
    kept(&fs).lock(path("/d/lock")).unwrap();
    drop(held);
    fs.lock(path("/d/lock")).unwrap();
}

#[test]
fn errors_are_those_of_a_real_file_system() {
    let (fs, _) = disk_with(b"x");
    let kind = |r: io::Result<()>| r.unwrap_err().kind();
    assert_eq!(kind(fs.create(path(F)).map(drop)), io::ErrorKind::AlreadyExists);
    assert_eq!(
        kind(fs.create(path("/none/f")).map(drop)),
        io::ErrorKind::NotFound
    );
    assert_eq!(kind(fs.open(path("/d/none")).map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.list(path("/none")).map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.remove_dir(path("/d"))), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(fs.hard_link(path(F), path(F))), io::ErrorKind::AlreadyExists);
    assert_eq!(
        kind(fs.open(path(F)).unwrap().write_all_at(b"y", 0)),
        io::ErrorKind::PermissionDenied
    );
    let short = fs.open(path(F)).unwrap().read_exact_at(&mut [0; 2], 0);
    assert_eq!(kind(short), io::ErrorKind::UnexpectedEof);
    assert_eq!(
        kind(fs.open_rw(path(F)).unwrap().set_len(u64::MAX)),
        io::ErrorKind::FileTooLarge
    );
}

#[test]
fn linked_file_keeps_its_content_under_both_names() {
    let (fs, file) = disk_with(b"x");
    fs.hard_link(path(F), path("/d/g")).unwrap();
    fs.sync_dir(path("/d")).unwrap();
    fs.remove_file(path(F)).unwrap();
    fs.sync_dir(path("/d")).unwrap();
    drop(file);
    assert_eq!(dropped(&fs).content("/d/g").unwrap(), b"x");
    let names: Vec<String> = fs.list(path("/d")).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["g"]);
}

#[test]
fn damage_by_hand_is_durable() {
    let (fs, _) = disk_with(b"abc");
    fs.create(path("/d/g"))
        .unwrap()
        .write_all_at(b"other", 0)
        .unwrap();
    assert!(fs.swap(F, "/d/g"));
    assert!(fs.corrupt(F, |bytes| bytes[0] ^= 1));
    assert_eq!(dropped(&fs).content(F).unwrap(), b"nther");
    assert!(fs.lose(F));
    assert!(!fs.lose(F));
    assert_eq!(dropped(&fs).content(F), None);
}

#[test]
fn time_and_randomness_repeat_with_the_seed() {
    let fs = SimFs::new();
    let draw = |seed| {
        let mut buf = [0; 20];
        fs.io(seed).rng.fill(&mut buf).unwrap();
        buf
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let clock = SimClock::with_step(Duration::ZERO);
    let before = clock.now_ms();
    clock.advance(Duration::from_secs(2));
    assert_eq!(clock.now_ms(), before + 2000);
    assert!(SimClock::new().monotonic() == Duration::ZERO);
}

#[test]
fn pages_copy_on_write_across_boundaries() {
    let mut content = Content::default();
    let bytes: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    content.write(&bytes, 5000);
    let copy = content.clone();
    content.write(&[7; 5000], 6000);
    let mut buf = vec![0; 10_000];
    copy.read(&mut buf, 5000).unwrap();
    assert_eq!(buf, bytes);
    assert_eq!(content.to_vec()[6000..11_000], [7; 5000]);
    assert_eq!(content.to_vec()[..5000], [0; 5000]);
    assert_eq!(content.len(), 15_000);
}
