#![no_main]
strongroom_libfuzzer::entry!("file_header");
