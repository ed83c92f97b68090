#![no_main]
strongroom_libfuzzer::entry!("token_record");
