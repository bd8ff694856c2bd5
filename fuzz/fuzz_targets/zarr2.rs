#![no_main]

voxloom_fuzz::fuzz!("zarr2");
