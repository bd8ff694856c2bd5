//! Filters on blocks in memory: convolution, smoothing, rank filters, local statistics.
