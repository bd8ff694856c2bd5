#![no_main]

voxloom_fuzz::fuzz!("metaimage");
