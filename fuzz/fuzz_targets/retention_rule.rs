#![no_main]
strongroom_libfuzzer::entry!("retention_rule");
