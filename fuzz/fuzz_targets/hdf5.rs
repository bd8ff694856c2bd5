#![no_main]

voxloom_fuzz::fuzz!("hdf5");
