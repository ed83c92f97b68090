#![no_main]
strongroom_libfuzzer::entry!("rpc_stream_standby");
