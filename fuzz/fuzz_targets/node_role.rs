#![no_main]
strongroom_libfuzzer::entry!("node_role");
