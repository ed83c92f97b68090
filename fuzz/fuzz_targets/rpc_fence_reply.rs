#![no_main]
strongroom_libfuzzer::entry!("rpc_fence_reply");
