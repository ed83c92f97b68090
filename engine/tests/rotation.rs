//! What a rotation of the log that fails leaves behind, on the simulated disk.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use strongroom::io::sim::{Fault, SimFs, Times};
use strongroom::keys::MemoryKeys;
use strongroom::*;

/// Story: the header's write failed, and so did the removal of its file; the close went into the old segment, and
/// recovery took the log to end at the empty one (simulation, engine seed 0x6da772ed971fce6e).
#[test]
fn rotation_fails_at_any_operation_then_a_close_or_a_kill_leaves_a_database_that_opens() {
    for close in [true, false] {
        for nth in 1..=12 {
            let (fs, keys) = (SimFs::new(), MemoryKeys::new());
            let open = |seed| {
                Engine::builder("/db")
                    .shared_keys(Arc::new(keys.clone()))
                    .options(Options::tiny())
                    .io(fs.io(seed))
                    .open()
            };
            let engine = open(2 * nth).unwrap();
            let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
            let keyspace = tenant.keyspace("k").unwrap();
            keyspace.put("full", vec![7; 20_000]).unwrap();
            fs.fail(Fault::io_error(fs.ops() + nth, Times::Forever));
            let acknowledged = keyspace.put("next", "v").is_ok();
            fs.clear_faults();
            if close {
                let _ = engine.close();
            }
            drop((keyspace, tenant, engine));
            let engine =
                open(2 * nth + 1).unwrap_or_else(|e| panic!("operation {nth}, close {close}: {e:?}"));
            let keyspace = engine.tenant("t").unwrap().open_keyspace("k").unwrap();
            assert_eq!(keyspace.get("full").unwrap().map(|v| v.len()), Some(20_000));
            assert!(!acknowledged || keyspace.get("next").unwrap().is_some());
        }
    }
}
