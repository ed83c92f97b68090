#![no_main]
strongroom_libfuzzer::entry!("manifest_file");
