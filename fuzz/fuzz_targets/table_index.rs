#![no_main]
strongroom_libfuzzer::entry!("table_index");
