#![no_main]
strongroom_libfuzzer::entry!("rpc_admin_requests");
