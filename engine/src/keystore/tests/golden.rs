//! Files that format 1 wrote, kept as bytes: every later version must read them (E8).
//!
//! They were made by a world of seed 60: two tenants in the base, a third in the log; an escrow of the three;
//! a key file with one destroyed version, and 32 bytes of 7 that it wrapped.

use super::*;
use crate::io::Vfs;
use crate::keys::{EscrowSecret, KeyFile, open_escrow};

fn bytes(hex_lines: &str) -> Vec<u8> {
    hex::decode(hex_lines.split_whitespace().collect::<String>()).unwrap()
}

fn put(fs: &SimFs, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    fs.create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs.create(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

#[test]
fn keystore_of_format_1_opens() {
    let world = World::new(60);
    assert_eq!(world.keys.create_version().unwrap(), KekVersion(1));
    put(
        &world.fs,
        "/db/keystore/base-0000000000000002",
        &bytes(include_str!("golden/base.hex")),
    );
    put(
        &world.fs,
        "/db/keystore/log-0000000000000002",
        &bytes(include_str!("golden/log.hex")),
    );
    // Opening folds, with other random bytes than made these files.
    let world = World {
        io: world.fs.io(6000),
        ..world
    };
    let keystore = world.open();
    assert_eq!(content(&keystore), bytes(include_str!("golden/changes.hex")));
    assert_eq!(keystore.id("b\u{e9}"), Some(TenantId(2)));
    assert_eq!(keystore.id("c"), Some(TenantId(3)));
}

#[test]
fn escrow_of_format_1_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let file = Io::os().vfs.create(&path).unwrap();
    file.write_all_at(include_bytes!("golden/escrow.secret"), 0)
        .unwrap();
    let secret = EscrowSecret::load(&path).unwrap();
    let text = "srescrow178536a80034b1c68a9831caf871c548740282a743a9d51623e09a3122ccadd6937d8fd2d";
    assert_eq!(secret.recipient().to_text(), text);
    let changes = open_escrow(&bytes(include_str!("golden/escrow.hex")), &secret).unwrap();
    assert_eq!(
        changes.encode().to_vec(),
        bytes(include_str!("golden/changes.hex"))
    );
}

#[test]
fn key_file_of_format_1_unwraps() {
    let fs = SimFs::new();
    put(&fs, "/strongroom.key", include_bytes!("golden/strongroom.key"));
    let keys = KeyFile::open_in(fs.io(1), Path::new("/strongroom.key")).unwrap();
    let root = keys
        .unwrap(
            KekVersion(2),
            &bytes(include_str!("golden/wrapped.hex")),
            b"context",
        )
        .unwrap();
    assert_eq!(*root, [7; 32]);
    assert_eq!(keys.create_version().unwrap(), KekVersion(3));
}
