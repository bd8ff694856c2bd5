//! Matching spots by the correlation of their surroundings, and one map from the matches.
