//! Bounds of numeric flags. An impossibly large or small number is refused with a message that
//! names its flag, before memory of that size is allocated.

use clap::builder::ValueParser;
use clap::{Arg, value_parser};

/// Largest value of a flag that is a length, in micrometres (1e9 um are a kilometre) or voxels.
const MAX_LENGTH: f64 = 1e9;
/// Smallest magnitude of a nonzero length, in micrometres or voxels.
const MIN_LENGTH: f64 = 1e-9;
/// Largest magnitude of other numbers, such as intensities in single precision.
const MAX_NUMBER: f64 = 1e40;
/// Largest count.
const MAX_COUNT: usize = 1_000_000_000;
/// The ids of flags that this module does not bound: `fill`, whose value can be any number, and
/// flags with parsers that have their own bounds.
const UNBOUNDED_FLAGS: [&str; 3] = ["fill", "threads", "allow-failed"];

/// The names of clap values that are lengths.
const LENGTHS: [&str; 3] = ["UM", "VOXELS", "LENGTH"];

/// Replaces the parser of a flag by a parser with bounds, if the value is an `f64` or a `usize`.
pub(super) fn bounded(arg: Arg) -> Arg {
    if !arg.get_action().takes_values() || UNBOUNDED_FLAGS.contains(&arg.get_id().as_str()) {
        return arg;
    }
    let kind = arg.get_value_parser().type_id();
    let float: ValueParser = value_parser!(f64).into();
    let whole: ValueParser = value_parser!(usize).into();
    if kind == float.type_id() {
        let names = arg.get_value_names().unwrap_or_default();
        let is_length = names.iter().any(|name| LENGTHS.contains(&name.as_str()));
        arg.value_parser(if is_length { length } else { number })
    } else if kind == whole.type_id() {
        arg.value_parser(count)
    } else {
        arg
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if value.abs() <= MAX_NUMBER => Ok(value),
        Ok(value) if value.is_nan() => Err("NaN is no number that can be used".to_owned()),
        Ok(_) => Err(format!("wanted a number of at most {MAX_NUMBER:e}")),
        Err(_) => Err("wanted a number".to_owned()),
    }
}

/// Parses a length in micrometres or voxels; its magnitude must be 0 or in
/// `MIN_LENGTH..=MAX_LENGTH`.
pub(super) fn length(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value == 0.0 || (MIN_LENGTH..=MAX_LENGTH).contains(&value.abs()) {
        return Ok(value);
    }
    Err(format!("no volume has this length; wanted {MIN_LENGTH:e} to {MAX_LENGTH:e}"))
}

fn count(text: &str) -> Result<usize, String> {
    let wanted = || format!("wanted a whole number from 0 to {MAX_COUNT}");
    text.trim().parse().ok().filter(|count| *count <= MAX_COUNT).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use clap::{Command, Parser};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[arg(long, value_name = "UM", default_value_t = 2.0)]
        distance: f64,
        #[arg(long, value_name = "SHARE")]
        share: Option<f64>,
        #[arg(long, value_name = "N")]
        levels: Option<usize>,
        #[arg(long, default_value_t = 0.0)]
        fill: f64,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    }

    fn parse(words: &[&str]) -> Result<Flags, String> {
        let command: Command = <Flags as clap::CommandFactory>::command();
        let words = std::iter::once("x").chain(words.iter().copied());
        let matches = command.mut_args(bounded).try_get_matches_from(words);
        let matches = matches.map_err(|e| e.to_string())?;
        <Flags as clap::FromArgMatches>::from_arg_matches(&matches).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_that_nothing_has_are_refused_by_the_name_of_their_flag() {
        for (flag, values) in [
            ("distance", ["1e308", "-1e300", "NaN", "inf", "1e10", "5e-324", "", "x"].as_slice()),
            ("share", &["NaN", "-inf", "1e308", "9999999999999999999999999999999999999999999"]),
            (
                "levels",
                &["-1", "1e3", "18446744073709551616", "18446744073709551615", "1000000001"],
            ),
            ("seed", &["-1", "18446744073709551616"]),
        ] {
            for value in values {
                let error = parse(&[&format!("--{flag}={value}")]).err();
                assert!(error.is_some_and(|e| e.contains(flag)), "--{flag}={value}");
            }
        }
    }

    #[test]
    fn numbers_that_can_be_meant_are_taken() {
        let flags = parse(&["--distance=0", "--share=1e-30", "--levels=7", "--fill=NaN"]).unwrap();
        assert_eq!((flags.distance, flags.share, flags.levels), (0.0, Some(1e-30), Some(7)));
        assert!(flags.fill.is_nan());
        assert_eq!(parse(&["--seed=18446744073709551615"]).unwrap().seed, u64::MAX);
        assert_eq!(parse(&[]).unwrap().distance, 2.0);
    }
}
