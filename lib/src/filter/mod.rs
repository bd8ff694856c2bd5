//! Filters on blocks in memory: convolution, smoothing, rank filters, local statistics.
mod moments;
pub use moments::moments;
