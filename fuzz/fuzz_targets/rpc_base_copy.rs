#![no_main]
strongroom_libfuzzer::entry!("rpc_base_copy");
