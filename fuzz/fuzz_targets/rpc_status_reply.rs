#![no_main]
strongroom_libfuzzer::entry!("rpc_status_reply");
