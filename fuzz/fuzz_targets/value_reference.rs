#![no_main]
strongroom_libfuzzer::entry!("value_reference");
