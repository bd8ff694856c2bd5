//! Resampling volumes and carrying points through chains of transforms.
