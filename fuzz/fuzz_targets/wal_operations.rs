#![no_main]
strongroom_libfuzzer::entry!("wal_operations");
