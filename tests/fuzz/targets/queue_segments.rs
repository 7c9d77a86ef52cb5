#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| robustmq_fuzz::queue::check(data));
