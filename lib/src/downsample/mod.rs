//! Pyramids: mean, mode, min, max, stride.
