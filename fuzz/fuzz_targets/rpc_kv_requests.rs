#![no_main]
strongroom_libfuzzer::entry!("rpc_kv_requests");
