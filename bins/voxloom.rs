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
    "mask.rs" mask::Mask,
    "rough.rs" rough::Rough,
    "flow.rs" flow::Flow,
    "clean_flow.rs" clean_flow::CleanFlow,
    "relax.rs" relax::Relax,
    "stitch.rs" stitch::Stitch,
    "fuse.rs" fuse::Fuse,
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
    use voxloom::cli::{FLAGS, ProgramEntry};

    use super::PROGRAMS;

    /// Checks that the library's list of flags for parameters files (`cli/config/flags.txt`) is
    /// that of the programs. With `VOXLOOM_UPDATE=1`, the test writes the list.
    #[test]
    fn the_list_of_flags_is_that_of_the_programs() {
        let mut lines: Vec<String> = PROGRAMS.iter().map(ProgramEntry::flags).collect();
        lines.sort_unstable();
        let flags = lines.concat();
        if std::env::var_os("VOXLOOM_UPDATE").is_some() {
            let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../lib/src/cli/config/flags.txt");
            std::fs::write(list, &flags).unwrap();
        }
        let way_out = "run make flags, which writes the list";
        assert!(FLAGS == flags, "{way_out}: found\n{FLAGS}\nwanted\n{flags}");
    }
}
