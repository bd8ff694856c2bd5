//! One affine per block, consistent with its neighbours.

mod cpu;
#[cfg(test)]
mod oracle;
mod outliers;
mod robust;
mod solve;
