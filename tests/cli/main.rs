//! Tests of the programs through their command lines.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::print_stderr, reason = "what was measured is shown")]

mod apply;
mod chunked;
mod clashes;
mod cloud;
mod correctness;
mod deform;
mod disk;
mod faults;
mod fields;
mod flags;
mod foreign;
mod identity;
mod jobs;
mod masks;
mod memory;
mod pipes;
mod planes;
mod recovery;
mod refine;
mod resume;
mod same_answer;
mod scene;
mod sections;
mod shapes;
mod stacks;
mod stderr;
mod tiles;
mod transcode;
mod unfinished;
mod unreliable;
mod unusual_input;
mod whole;
