//! Several tenants in one engine: each under its own keys, one of them deleted for good.
//!
//! `cargo run -p strongroom --example several_tenants`

use strongroom::keys::KeyFile;
use strongroom::{Engine, ErrorKind, TenantOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let keys = KeyFile::create(dir.path().join("strongroom.key"))?;
    let engine = Engine::builder(dir.path().join("data")).keys(keys).open()?;

    // One sync for all three; a name can be anything, it is never written in clear.
    engine.create_tenants(&["acme", "globex", "initech"])?;
    for info in engine.tenants() {
        let notes = engine.tenant(&info.name)?.keyspace("notes")?;
        notes.put("hello", format!("I belong to tenant {}", info.id))?;
    }

    // The same key, three values: tenants share files, never keys or contents.
    for info in engine.tenants() {
        let value = engine.tenant(&info.name)?.open_keyspace("notes")?.get("hello")?;
        println!("{}: {:?}", info.name, value);
    }

    // A batch cannot reach into another tenant.
    let (acme, globex) = (engine.tenant("acme")?, engine.tenant("globex")?);
    let foreign = acme
        .batch()
        .put(&globex.open_keyspace("notes")?, "x", "y")
        .commit();
    println!(
        "a batch across tenants: {}",
        foreign.err().map(|e| e.to_string()).unwrap_or_default()
    );

    let notes = globex.open_keyspace("notes")?;
    let deletion = engine.delete_tenant("globex")?;
    println!("deleted tenant {}: keys {:?}", deletion.tenant, deletion.root);
    assert_eq!(notes.get("hello").map_err(|e| e.kind()), Err(ErrorKind::NotFound));
    assert!(
        engine
            .create_tenant("globex", TenantOptions::default())?
            .keyspaces()?
            .is_empty()
    );
    engine.close()?;
    Ok(())
}
