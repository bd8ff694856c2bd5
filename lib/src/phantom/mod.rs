//! Realistic test sets with known truth.
