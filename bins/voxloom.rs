//! `voxloom`: all programs in one executable, to be called through links or by program name.

use std::process::ExitCode;

use voxloom::cli::{ProgramEntry, multicall};

macro_rules! programs {
    ($($file:literal $module:ident::$program:ident),* $(,)?) => {
        $(
            #[path = $file]
            #[expect(dead_code, reason = "each file is a program of its own, with a main")]
            mod $module;
        )*
        /// The programs, in the order in which the overview lists them.
        const PROGRAMS: &[ProgramEntry] = &[$(ProgramEntry::of::<$module::$program>()),*];
    };
}

programs![
    "inspect.rs" inspect::Inspect,
    "report.rs" report::Report,
    "pick_level.rs" pick_level::PickLevel,
    "extract_spots.rs" extract_spots::ExtractSpots,
    "ransac.rs" ransac::Ransac,
    "refine.rs" refine::Refine,
    "local_affine.rs" local_affine::LocalAffine,
    "deform.rs" deform::Deform,
    "invmap.rs" invmap::Invmap,
    "apply_transform.rs" apply_transform::ApplyTransform,
    "downsample.rs" downsample::Downsample,
    "transcode.rs" transcode::Transcode,
    "phantom.rs" phantom::Phantom,
];

fn main() -> ExitCode {
    multicall(PROGRAMS)
}

#[cfg(test)]
mod tests {
    use super::PROGRAMS;
    use voxloom::cli::VOCABULARY;

    #[test]
    fn a_parameters_file_may_hold_the_flags_of_every_program() {
        for program in PROGRAMS {
            for flag in program.flags() {
                assert!(VOCABULARY.contains(&flag.as_str()), "{}: --{flag}", program.name());
            }
        }
    }
}
