//! Bytes that are not what was written.

use super::*;

#[test]
fn any_flipped_bit_of_a_closed_keystore_is_an_error() {
    let world = World::new(12);
    let keystore = world.create();
    keystore.create_tenants(&["a", "b"]).unwrap();
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
    keystore.close().unwrap();
    drop(keystore);
    let files = world.files();
    assert_eq!(files.len(), 1, "{:?}", world.names());
    let (path, bytes) = files.iter().next().unwrap();
    for at in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        assert!(damaged.fs.corrupt(path, |b| b[at] ^= 1 << (at % 8)));
        let error = damaged.try_open().err().unwrap_or_else(|| panic!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}: {error}");
        assert_eq!(error.path(), Some(path.as_path()), "byte {at}");
    }
    for len in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(path, |b| b.truncate(len));
        assert_eq!(
            damaged.try_open().err().unwrap().kind(),
            ErrorKind::Corruption,
            "cut at {len}"
        );
    }
    let longer = world.with_disk(world.fs.fork());
    longer.fs.corrupt(path, |b| b.push(0));
    assert_eq!(longer.try_open().err().unwrap().kind(), ErrorKind::Corruption);
}

#[test]
fn forged_preamble_with_a_good_checksum_is_refused() {
    let world = World::new(13);
    world.create().close().unwrap();
    let path = world.files().into_keys().next().unwrap();
    for at in 128..128 + 72 {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(&path, |b| {
            b[at] ^= 1;
            let wrapped = u32::from_le_bytes(b[216..220].try_into().unwrap()) as usize;
            let crc = crc32fast::hash(&b[128..220 + wrapped]);
            b[220 + wrapped..224 + wrapped].copy_from_slice(&crc.to_le_bytes());
        });
        let kind = damaged
            .try_open()
            .err()
            .unwrap_or_else(|| panic!("byte {at}"))
            .kind();
        assert!(
            matches!(kind, ErrorKind::Corruption | ErrorKind::KeyRefused),
            "byte {at}"
        );
    }
}

#[test]
fn damaged_log_is_an_error_or_a_torn_tail_never_other_content() {
    let world = World::new(14);
    let keystore = world.create();
    let mut states = vec![content(&keystore)];
    for name in ["a", "b", "c"] {
        keystore.create_tenants(&[name]).unwrap();
        states.push(content(&keystore));
    }
    drop(keystore);
    let files = world.files();
    let (path, bytes) = files
        .iter()
        .find(|(p, _)| p.to_string_lossy().contains("log-"))
        .unwrap();
    // The first change wrote base and log, the two others a frame each.
    let frame = (bytes.len() - format::LOG_HEAD_BYTES) / 2;
    let last = bytes.len() - frame;
    for at in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(path, |b| b[at] ^= 1 << (at % 8));
        match damaged.try_open() {
            Ok(keystore) => {
                assert!(at >= last, "byte {at} of an acknowledged frame was cut off");
                assert_eq!(content(&keystore), states[2]);
            }
            Err(error) => {
                assert!(at < last, "byte {at}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}");
            }
        }
    }
    for len in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(path, |b| b.truncate(len));
        match damaged.try_open() {
            Ok(keystore) => {
                assert!(len >= format::LOG_HEAD_BYTES);
                let expected = 1 + (len - format::LOG_HEAD_BYTES) / frame;
                assert_eq!(content(&keystore), states[expected], "cut at {len}");
            }
            Err(error) => {
                assert!(len < format::LOG_HEAD_BYTES, "cut at {len}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corruption);
            }
        }
    }
}

#[test]
fn lost_file_of_a_keystore_is_an_error() {
    let world = World::new(15);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    drop(keystore);
    let files = world.files();
    assert_eq!(files.len(), 2);
    for path in files.keys() {
        let damaged = world.with_disk(world.fs.fork());
        assert!(damaged.fs.lose(path));
        let error = damaged.try_open().err().unwrap_or_else(|| panic!("{path:?}"));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{path:?}");
    }
}

#[test]
fn log_of_another_moment_is_an_error() {
    let world = World::new(16);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    let old = world.files();
    drop(keystore);
    // Folds, and begins another log.
    let keystore = world.open();
    keystore.create_tenants(&["c"]).unwrap();
    drop(keystore);
    let is_log = |p: &&PathBuf| p.to_string_lossy().contains("log-");
    let (old_log, new_log) = (old.keys().find(is_log).unwrap(), world.files());
    let new_log = new_log.keys().find(is_log).unwrap().clone();
    assert_ne!(old_log, &new_log);
    world.fs.corrupt(&new_log, |b| *b = old[old_log].clone());
    assert_eq!(world.try_open().err().unwrap().kind(), ErrorKind::Corruption);
}

#[test]
fn torn_tail_that_looks_like_a_frame_start_is_still_torn() {
    let world = World::new(50);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    let before = content(&keystore);
    drop(keystore);
    let path = world
        .files()
        .into_keys()
        .find(|p| p.to_string_lossy().contains("log-"))
        .unwrap();
    for tail in [
        &b"K"[..],
        b"KOP1",
        &[0; 4096],
        b"KOP1\xff\xff\xff\xff....",
        &[b"KOP1".as_slice(); 300].concat(),
    ] {
        let torn = world.with_disk(world.fs.fork());
        torn.fs.corrupt(&path, |b| b.extend_from_slice(tail));
        let keystore = torn
            .try_open()
            .unwrap_or_else(|e| panic!("{} bytes: {e:?}", tail.len()));
        assert_eq!(content(&keystore), before);
    }
}

#[test]
fn random_bytes_in_place_of_any_file_never_panic() {
    use crate::io::Rng;
    let world = World::new(51);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    drop(keystore);
    let rng = crate::io::sim::SimRng::new(51);
    for (path, good) in world.files() {
        for round in 0..300usize {
            let damaged = world.with_disk(world.fs.fork());
            damaged.fs.corrupt(&path, |b| {
                let keep = (round * 7) % good.len();
                let mut noise = vec![0u8; (round * 13) % 600];
                rng.fill(&mut noise).unwrap();
                b.truncate(keep);
                b.extend_from_slice(&noise);
            });
            // Opening may find a torn tail, or damage; it must not panic, nor know more than was there.
            if let Ok(keystore) = damaged.try_open() {
                assert!(keystore.len() <= 2, "round {round}");
            }
        }
    }
}
