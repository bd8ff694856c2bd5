#![no_main]

voxloom_fuzz::fuzz!("n5");
