//! `src/generated/` is what `proto/replication.proto` says.
//!
//! The code is committed, so that building needs neither protoc nor a build script. After a change of the
//! protocol, run `STRONGROOM_REGENERATE=1 cargo test -p strongroom-replication --test generated`, which
//! writes the files instead of comparing them.

use std::fs;
use std::path::Path;

const FILE: &str = "strongroom.replication.v1.rs";

#[test]
fn protocol_compiled_then_equals_the_committed_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fds = protox::compile(["replication.proto"], [root.join("proto")]).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Endpoints are made in `dial.rs` only, never by a generated `connect`.
        .build_transport(false)
        .out_dir(fresh.path())
        .bytes(".strongroom.replication.v1.EpochStart")
        .bytes(".strongroom.replication.v1.Hello")
        .bytes(".strongroom.replication.v1.Wal")
        .bytes(".strongroom.replication.v1.KeysHello")
        .bytes(".strongroom.replication.v1.BaseRequest")
        .bytes(".strongroom.replication.v1.BaseBegin")
        .bytes(".strongroom.replication.v1.BaseChunk")
        .bytes(".strongroom.replication.v1.FenceRequest")
        .bytes(".strongroom.replication.v1.StatusReply")
        // Holds keys: a Vec, so that it can be wiped, and no Debug, so that it cannot be printed.
        .skip_debug([".strongroom.replication.v1.KeysChunk"])
        .compile_fds(fds)
        .unwrap();
    let fresh = fs::read_to_string(fresh.path().join(FILE)).unwrap();
    let committed = root.join("src/generated").join(FILE);
    if std::env::var_os("STRONGROOM_REGENERATE").is_some() {
        fs::write(&committed, fresh).unwrap();
        return;
    }
    let committed = fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        committed == fresh,
        "{FILE} is out of date: see the head of this test"
    );
}
