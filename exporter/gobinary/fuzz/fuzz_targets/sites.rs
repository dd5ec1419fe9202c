#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gobinary::fuzzing::sites(bytes));
