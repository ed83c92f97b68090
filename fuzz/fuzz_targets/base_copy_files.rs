#![no_main]
strongroom_libfuzzer::entry!("base_copy_files");
