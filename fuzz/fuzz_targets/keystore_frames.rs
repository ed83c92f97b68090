#![no_main]
strongroom_libfuzzer::entry!("keystore_frames");
