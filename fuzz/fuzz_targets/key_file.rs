#![no_main]
strongroom_libfuzzer::entry!("key_file");
