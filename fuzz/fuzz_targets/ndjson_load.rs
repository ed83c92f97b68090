#![no_main]
strongroom_libfuzzer::entry!("ndjson_load");
