#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| starling_tests::fuzz::codecs::record(data));
