#![no_main]
strongroom_libfuzzer::entry!("rpc_keys_chunks");
