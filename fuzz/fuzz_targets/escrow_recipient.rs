#![no_main]
strongroom_libfuzzer::entry!("escrow_recipient");
