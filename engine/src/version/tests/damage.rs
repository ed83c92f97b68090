//! Damaged files, and keys that do not fit: an error that names the file, or a torn last edit.

use super::super::current;
use super::super::edit::Edit;
use super::super::manifest;
use super::super::table_path;
use super::super::testing::{Machine, layout};
use super::{Look, filled, look};
use crate::error::ErrorKind;
use crate::types::Lsn;

/// Opens a damaged copy: what it looks like, or the error's kind and file.
fn reopen(
    machine: &Machine,
    damage: impl FnOnce(&Machine),
) -> std::result::Result<Look, (ErrorKind, String)> {
    let machine = machine.over(machine.fs.fork());
    damage(&machine);
    machine.open().map(|set| look(&set)).map_err(|e| {
        let name = e
            .path()
            .and_then(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned());
        (e.kind(), name.unwrap_or_default())
    })
}

#[test]
fn any_damage_to_a_closed_set_is_an_error_naming_the_file() {
    let machine = Machine::new();
    let set = filled(&machine);
    let number = set.next_number();
    set.close().unwrap();
    drop(set);
    let manifest = machine.manifests()[0];
    assert!(manifest > number);
    for path in [current::path(&machine.db), manifest::path(&machine.db, manifest)] {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = machine.fs.content(&path).unwrap();
        let check = |what: &str, result: std::result::Result<Look, (ErrorKind, String)>| match result {
            Ok(_) => panic!("{name}: {what} went unnoticed"),
            Err((kind, file)) => {
                assert!(
                    matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported),
                    "{name} {what} {kind:?}"
                );
                assert_eq!(file, name, "{what}");
            }
        };
        for bit in 0..bytes.len() * 8 {
            let result = reopen(&machine, |m| {
                m.fs.corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            });
            check(&format!("bit {bit}"), result);
        }
        for len in 0..bytes.len() {
            check(
                &format!("cut to {len}"),
                reopen(&machine, |m| {
                    m.fs.corrupt(&path, |bytes| bytes.truncate(len));
                }),
            );
        }
        check(
            "longer",
            reopen(&machine, |m| {
                m.fs.corrupt(&path, |bytes| bytes.push(0));
            }),
        );
        check(
            "lost",
            reopen(&machine, |m| {
                m.fs.lose(&path);
            }),
        );
    }
    let (_, table) = machine.open().map(|set| layout(&set.current())[0]).unwrap();
    let lost = reopen(&machine, |m| {
        m.fs.lose(table_path(&m.db, table));
    });
    assert_eq!(
        lost.unwrap_err(),
        (ErrorKind::Corruption, super::super::table_name(table))
    );
}

#[test]
fn damage_to_a_live_manifest_is_an_error_or_a_torn_last_edit() {
    let machine = Machine::new();
    let set = filled(&machine);
    let whole = look(&set);
    let path = manifest::path(&machine.db, machine.manifests()[0]);
    let before_last = {
        let bytes = machine.fs.content(&path).unwrap();
        let last = Edit {
            reach: Some(Lsn(77)),
            ..Edit::default()
        };
        set.log_and_apply(last).unwrap();
        bytes.len()
    };
    drop(set);
    let bytes = machine.fs.content(&path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let (mut torn, mut refused) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        let result = reopen(&machine, |m| {
            m.fs.corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        });
        match result {
            Ok(look) => {
                assert!(bit / 8 >= before_last, "bit {bit} went unnoticed");
                assert_eq!(look, whole, "bit {bit}");
                torn += 1;
            }
            Err((kind, file)) => {
                assert!(bit / 8 < before_last, "bit {bit} of the last edit: {kind:?}");
                assert!(
                    matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported),
                    "bit {bit} {kind:?}"
                );
                assert_eq!(file, name);
                refused += 1;
            }
        }
    }
    assert!(torn > 0 && refused > 0);
    let mut seen = Vec::new();
    for len in 0..bytes.len() {
        let result = reopen(&machine, |m| {
            m.fs.corrupt(&path, |bytes| bytes.truncate(len));
        });
        match result {
            // Some prefix of the edits.
            Ok(look) if seen.last() != Some(&look) => seen.push(look),
            Ok(_) => {}
            Err((kind, file)) => {
                assert!(seen.is_empty(), "cut to {len}");
                assert_eq!((kind, file.as_str()), (ErrorKind::Corruption, name.as_str()));
            }
        }
    }
    assert_eq!(seen.len(), 6, "the full state, then five edits");
    assert_eq!(seen.last(), Some(&whole));
}

#[test]
fn bad_frame_before_a_good_one_is_corruption_wherever_it_begins() {
    let machine = Machine::new();
    let set = filled(&machine);
    let path = manifest::path(&machine.db, machine.manifests()[0]);
    drop(set);
    let bytes = machine.fs.content(&path).unwrap();
    for (what, rest) in [
        ("zeros", vec![0; 700]),
        ("ones", vec![255; 700]),
        ("text", vec![b'a'; 700]),
    ] {
        // After the end: torn, cut, and reported.
        let torn = machine.over(machine.fs.fork());
        torn.fs.corrupt(&path, |bytes| bytes.extend_from_slice(&rest));
        assert_eq!(torn.open().unwrap().opened().cut_bytes, 700, "{what}");
        // In the middle, after the full state: the frames behind it are still good.
        let result = reopen(&machine, |m| {
            m.fs.corrupt(&path, |damaged| {
                let tail = damaged.split_off(bytes.len() - 300);
                damaged.extend_from_slice(&rest);
                damaged.extend_from_slice(&tail);
            });
        });
        assert_eq!(result.unwrap_err().0, ErrorKind::Corruption, "{what}");
    }
    // The last frame once more: its checksum holds, its place does not.
    let again = reopen(&machine, |m| {
        m.fs.corrupt(&path, |damaged| {
            damaged.extend_from_slice(&bytes[bytes.len() - 300..])
        });
    });
    assert_eq!(again.unwrap_err().0, ErrorKind::Corruption);
}

#[test]
fn other_system_key_is_refused_by_name() {
    let machine = Machine::new();
    drop(filled(&machine));
    machine.source.forget(0);
    assert_eq!(reopen(&machine, |_| ()).unwrap_err().0, ErrorKind::KeyRefused);
    machine.source.create(0);
    assert_eq!(reopen(&machine, |_| ()).unwrap_err().0, ErrorKind::KeyRefused);
}

#[test]
fn manifest_of_a_length_it_cannot_have_is_refused_before_any_of_it_is_read() {
    for close in [false, true] {
        let machine = Machine::new();
        let set = filled(&machine);
        if close {
            set.close().unwrap();
        }
        drop(set);
        let path = manifest::path(&machine.db, machine.manifests()[0]);
        let before = machine.fs.content(&path).unwrap().len() as u64;
        machine.io.vfs.open_rw(&path).unwrap().set_len(3 << 30).unwrap();
        // Whoever reads what was written gets an I/O error.
        machine.fs.spoil(&path, if close { 0 } else { 200 }..u64::MAX);
        let error = machine.open().map(|_| ()).unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Corruption, Some(path.as_path())),
            "{error}"
        );
        let (structure, expected, found) = error.mismatch().unwrap();
        assert_eq!(found, (3u64 << 30).to_string());
        match close {
            true => assert_eq!(
                (structure, expected),
                ("closed manifest's length", before.to_string().as_str())
            ),
            false => {
                assert_eq!(structure, "manifest's length");
                assert!(expected.starts_with("at most "), "{expected}");
            }
        }
    }
}

#[test]
fn longest_manifest_leaves_room_for_the_largest_edit_and_for_a_full_disk() {
    let frame = 1u64 << 30;
    for (full, replaced_at) in [
        (0, 1 << 20),
        (200, 1 << 20),
        (1 << 20, 4 << 20),
        (frame, 4 * frame),
    ] {
        let most = manifest::length_max(full);
        assert_eq!(most, 2 * replaced_at + frame, "full state of {full} bytes");
    }
}

#[test]
fn tail_made_to_look_like_many_frames_is_given_up_on() {
    let machine = Machine::new();
    drop(filled(&machine));
    let path = manifest::path(&machine.db, machine.manifests()[0]);
    // Every fourth byte begins a length that fits.
    machine.fs.corrupt(&path, |bytes| {
        for _ in 0..1 << 17 {
            bytes.extend_from_slice(&0x0003_0000u32.to_le_bytes());
        }
    });
    let error = machine.open().map(|_| ()).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(path.as_path()))
    );
}
