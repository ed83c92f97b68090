//! The committed gRPC code is what the protos generate. `STRONGROOM_REGENERATE=1 cargo test -p
//! strongroom-client --test generated` rewrites it; no `protoc` is involved.

use std::fs;
use std::path::Path;

use prost_types::FileDescriptorSet;

const PROTOS: [(&str, &str); 2] = [("kv.proto", "kv"), ("admin.proto", "admin")];

#[test]
fn protos_compiled_then_generated_code_is_the_committed_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated");
    let out = tempfile::tempdir().expect("a temporary directory");
    for (proto, name) in PROTOS {
        let set: FileDescriptorSet =
            protox::compile([proto], [root.join("proto")]).unwrap_or_else(|e| panic!("{proto}: {e}"));
        let bytes = prost::Message::encode_to_vec(&set);
        fs::write(out.path().join(format!("{name}.bin")), bytes).expect("descriptor set written");
        tonic_prost_build::configure()
            .bytes(".")
            .emit_rerun_if_changed(false)
            .out_dir(out.path())
            .compile_fds(set)
            .unwrap_or_else(|e| panic!("{proto}: {e}"));
    }
    let mut names: Vec<_> = fs::read_dir(out.path())
        .expect("generated files")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in names {
        let fresh = fs::read(out.path().join(&name)).expect("a generated file");
        let path = committed.join(&name);
        if std::env::var_os("STRONGROOM_REGENERATE").is_some() {
            fs::create_dir_all(&committed).expect("src/generated");
            fs::write(&path, &fresh).expect("rewritten");
        }
        let old = fs::read(&path).unwrap_or_default();
        assert!(
            old == fresh,
            "{} is stale: run with STRONGROOM_REGENERATE=1",
            path.display()
        );
    }
}
