//! Parsers of the values of flags.

use std::str::FromStr;

use crate::blocks::Part;
use crate::device::Device;
use crate::geom::Point;
use crate::quote;

/// Largest magnitude of a coordinate, in micrometres: a thousand kilometres.
const MAX_COORDINATE: f64 = 1e12;
/// Smallest and largest size of a voxel, in micrometres.
const SPACINGS: [f64; 2] = [1e-6, 1e9];
/// Maximum number of voxels of a block.
const MAX_BLOCK: usize = 1_000_000_000_000;
/// Maximum number of voxels of a volume: ten times that of a cube of 100 000 voxels along each
/// axis.
const MAX_VOLUME: usize = 10_000_000_000_000_000;
/// Maximum memory, in bytes.
const MAX_MEMORY: f64 = 1e18;
/// Maximum number of parts of a run.
const MAX_PARTS: usize = 1_000_000;
/// Maximum number of threads.
const MAX_THREADS: usize = 1024;
/// Maximum number of channels in a list.
const MAX_CHANNELS: usize = 1000;

/// Three lengths in micrometres, written `z,y,x` with a unit (`nm`, `um`, `mm`; `um` if omitted).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length3(pub Point);

impl FromStr for Length3 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (numbers, unit) = unit_of(text);
        let micrometres = micrometres(unit)?;
        let parts: Vec<&str> = numbers.split(',').collect();
        if let Some(early) = parts[..parts.len() - 1].iter().find(|part| has_unit(part)) {
            return Err(format!(
                "'{}' has a unit of its own; the unit stands once, after the last number, as in 4,2,2nm",
                early.trim()
            ));
        }
        let lengths = three::<f64>(numbers, "0.4,0.2,0.2um")?;
        let lengths = lengths.map(|length| length * micrometres);
        // this comparison, unlike `>`, also refuses NaN
        match lengths.iter().find(|length| !(length.abs() <= MAX_COORDINATE)) {
            Some(length) => {
                Err(format!("{} um is no length that a volume has", quote::number(*length)))
            }
            None => Ok(Self(lengths)),
        }
    }
}

/// Splits a text into its numbers, separated by commas, and the unit after the last number.
fn unit_of(text: &str) -> (&str, &str) {
    let last = text.rfind(',').map_or(0, |comma| comma + 1);
    // NaN is parsed as a number here, and refused by the caller
    if text[last..].trim().parse::<f64>().is_ok() {
        return (text, "");
    }
    let letter = text[last..].find(|c: char| c.is_alphabetic() && c != 'e' && c != 'E');
    text.split_at(letter.map_or(text.len(), |at| last + at))
}

fn micrometres(unit: &str) -> Result<f64, String> {
    match unit.trim() {
        "nm" => Ok(1e-3),
        "" | "um" | "µm" | "μm" => Ok(1.0),
        "mm" => Ok(1e3),
        unit => Err(format!("the unit '{unit}' is none of nm, um, mm")),
    }
}

/// Whether `part` is a number followed by a known unit.
fn has_unit(part: &str) -> bool {
    let (number, unit) = unit_of(part);
    !unit.is_empty() && number.trim().parse::<f64>().is_ok() && micrometres(unit).is_ok()
}

/// Parses a [`Length3`] whose components are all positive, such as a voxel size.
///
/// # Errors
/// A sentence that says what is wanted.
pub fn parse_spacing(text: &str) -> Result<Length3, String> {
    positive(text.parse()?)
}

/// Like [`parse_spacing`], but also accepts two lengths `y,x` for a plane; z is then NaN.
pub(super) fn parse_voxel_size(text: &str) -> Result<Length3, String> {
    plane_or(text, |text| positive(text.parse()?))
}

/// Parses a position as a [`Length3`], or as two lengths `y,x` for a plane; z is then NaN.
pub(super) fn parse_place(text: &str) -> Result<Length3, String> {
    plane_or(text, str::parse)
}

/// Applies `parse` to three lengths, or to the two lengths of a plane; z is then NaN.
fn plane_or(
    text: &str,
    parse: impl Fn(&str) -> Result<Length3, String>,
) -> Result<Length3, String> {
    let Some((first, _)) = text.split_once(',').filter(|_| text.matches(',').count() == 1) else {
        return parse(text).map_err(or_two);
    };
    let Length3([_, y, x]) = parse(&format!("{first},{text}")).map_err(or_two)?;
    Ok(Length3([f64::NAN, y, x]))
}

/// Extends a message that asks for three numbers: two numbers, `y,x`, are accepted too.
fn or_two(error: String) -> String {
    if error.starts_with("wanted three") {
        format!("{error}, or two along y,x for a plane")
    } else {
        error
    }
}

fn positive(lengths: Length3) -> Result<Length3, String> {
    if lengths.0.iter().any(|length| *length <= 0.0) {
        return Err("a voxel size is positive along each axis".to_owned());
    }
    let [least, most] = SPACINGS;
    if lengths.0.iter().all(|length| (least..=most).contains(length)) {
        return Ok(lengths);
    }
    Err(format!("no voxel has this size; wanted {least:e} to {most:e} um"))
}

/// Parses the shape of a block, a chunk or a shard in voxels, `z,y,x`, or `y,x` for one voxel along
/// z. The number of voxels is limited, because a whole block is held in memory.
///
/// # Errors
/// A sentence that says what is wanted.
pub fn parse_size3(text: &str) -> Result<[usize; 3], String> {
    shape3(text, MAX_BLOCK, "no memory holds a block of so many voxels")
}

/// Parses the shape of a volume in voxels, `z,y,x`, or of a plane, `y,x`.
///
/// # Errors
/// A sentence that says what is wanted.
pub fn parse_shape3(text: &str) -> Result<[usize; 3], String> {
    shape3(text, MAX_VOLUME, "no volume has so many voxels")
}

fn shape3(text: &str, most: usize, too_many: &str) -> Result<[usize; 3], String> {
    let in_plane = text.matches(',').count() == 1;
    let whole = if in_plane { format!("1,{text}") } else { text.to_owned() };
    let size = three::<usize>(&whole, "128,128,128").map_err(or_two)?;
    if size.contains(&0) {
        return Err("a size of 0 voxels holds nothing".to_owned());
    }
    let voxels = size.iter().try_fold(1_usize, |product, n| product.checked_mul(*n));
    if voxels.is_none_or(|voxels| voxels > most) {
        return Err(format!("{too_many}; wanted {:e} at most", most as f64));
    }
    Ok(size)
}

fn three<T: FromStr>(text: &str, example: &str) -> Result<[T; 3], String> {
    let values: Option<Vec<T>> = text.split(',').map(|value| value.trim().parse().ok()).collect();
    values
        .and_then(|values| values.try_into().ok())
        .ok_or_else(|| format!("wanted three numbers along z,y,x such as {example}"))
}

/// Channels of an image: comma-separated numbers from 0, or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channels {
    /// All channels of the image.
    All,
    /// The listed channels, in this order; the list is not empty.
    These(Vec<usize>),
}

impl std::str::FromStr for Channels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let list: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        let Ok(list) = list else {
            return Err("wanted numbers from 0 such as 0,2, or all".to_owned());
        };
        if list.len() > MAX_CHANNELS {
            return Err(format!(
                "{} channels are named; wanted {MAX_CHANNELS} at most",
                list.len()
            ));
        }
        match list.iter().enumerate().find(|(i, n)| list[..*i].contains(n)) {
            Some((_, twice)) => Err(format!("channel {twice} is named twice")),
            None => Ok(Self::These(list)),
        }
    }
}

/// Parses a number of bytes: `4GB` and `4G` are 4 000 000 000, `512MiB` and `512Mi` are 512 x
/// 1024^2.
///
/// # Errors
/// A sentence that says what is wanted.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size such as 4GB, 512MiB or 1000000");
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (prefix, base) = match unit.strip_suffix('i') {
        Some(prefix) => (prefix, 1024_f64),
        None => (unit, 1000_f64),
    };
    let power = match prefix {
        "" if base == 1000.0 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let bytes = number * base.powi(power);
    if bytes > MAX_MEMORY {
        return Err(format!("no machine has so much memory as '{text}'"));
    }
    if bytes >= 1.0 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Parses `K/N`: the K-th of N parts of a run, K from 1.
pub(super) fn parse_part(text: &str) -> Result<Part, String> {
    let part = text
        .split_once('/')
        .and_then(|(k, n)| Some(Part { k: k.trim().parse().ok()?, n: n.trim().parse().ok()? }));
    match part {
        Some(Part { n, .. }) if n > MAX_PARTS => {
            Err(format!("no run has so many parts; N goes to {MAX_PARTS}"))
        }
        Some(part) if (1..=part.n).contains(&part.k) => Ok(part),
        Some(Part { n, .. }) if n > 0 => Err(format!("K goes from 1 to {n}")),
        _ => Err("wanted K/N such as 1/4: the first of four parts".to_owned()),
    }
}

/// Parses `auto` or `cpu`. The names `cuda` and `cuda:N` are refused, because this version computes
/// on the CPU only.
pub(super) fn parse_device(text: &str) -> Result<Device, String> {
    match text {
        "auto" | "cpu" => Ok(Device::Cpu),
        _ if text == "cuda" || text.starts_with("cuda:") => {
            Err("this version computes on the CPU only; leave --device out".to_owned())
        }
        _ => Err("wanted auto, cpu, cuda or cuda:N".to_owned()),
    }
}

/// Parses a fraction from 0 to 1.
pub(super) fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err("wanted a fraction from 0 to 1".to_owned()),
    }
}

/// Parses a number of threads, from 1 to 1024.
pub(super) fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(threads),
        _ => Err(format!("wanted a number from 1 to {MAX_THREADS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_turned_to_micrometres() {
        let parse = |text: &str| text.parse::<Length3>().map(|length| length.0);
        assert_eq!(parse("2,1,0.5"), Ok([2.0, 1.0, 0.5]));
        assert_eq!(parse("2, 1, 0.5 um"), Ok([2.0, 1.0, 0.5]));
        assert_eq!(parse("400,200,200nm"), Ok([0.4, 0.2, 0.2]));
        assert_eq!(parse("-1e-3,0,2mm"), Ok([-1.0, 0.0, 2000.0]));
        assert!(parse("1,2").unwrap_err().contains("z,y,x"));
        assert!(parse("1,2,3in").unwrap_err().contains("'in'"));
        assert!(parse("4nm,4nm,4nm").unwrap_err().contains("'4nm' has a unit of its own"));
        assert!(parse_voxel_size("4nm,4nm").unwrap_err().contains("'4nm' has a unit of its own"));
        assert_eq!(parse_voxel_size("4,2nm").map(|l| l.0[1]), Ok(0.004));
        for text in ["nan,1,1", "1,1,NaN"] {
            assert!(parse(text).unwrap_err().starts_with("NaN um is no length"), "{text}");
        }
        assert!(parse("1e308,1,1").unwrap_err().starts_with("1e308 um is no length"));
        for text in ["1,2,inf", "1,2,NaN", "1e300,1,1", "1,1,1e10mm"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["1,1,1e-300", "1,1,1e-9", "1e12,1,1"] {
            assert!(parse_spacing(text).is_err(), "{text}");
        }
        assert!(parse_spacing("1,0,1").is_err() && parse_spacing("1,-1,1").is_err());
        assert_eq!(parse_spacing("1,1,1").unwrap().0, [1.0; 3]);
    }

    #[test]
    fn sizes_know_powers_of_1000_and_of_1024() {
        for (text, bytes) in [
            ("4GB", 4_000_000_000),
            ("4g", 4_000_000_000),
            ("512MiB", 512 << 20),
            ("1.5 KiB", 1536),
            ("2Ti", 2 << 40),
            ("123", 123),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "lots", "-1GB", "0", "4XB", "4iB", "GB", "1e308", "inf", "NaN", "1e10TB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn channels_are_numbers_or_all_of_them() {
        let parse = |text: &str| text.parse::<Channels>();
        assert_eq!(parse("2"), Ok(Channels::These(vec![2])));
        assert_eq!(parse("2, 0"), Ok(Channels::These(vec![2, 0])));
        assert_eq!(parse("all"), Ok(Channels::All));
        assert!(parse("1,1").unwrap_err().contains("twice"));
        for text in ["", "1,", "-1", "first", "0..2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_is_one_of_its_number() {
        assert_eq!(parse_part("2/4"), Ok(Part { k: 2, n: 4 }));
        for text in ["0/4", "5/4", "1/0", "2", "a/b", "-1/4", "1/18446744073709551615"] {
            assert!(parse_part(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_has_voxels_along_each_axis() {
        assert_eq!(parse_size3("1,2,3"), Ok([1, 2, 3]));
        assert_eq!((parse_size3("5,7"), parse_shape3("5,7")), (Ok([1, 5, 7]), Ok([1, 5, 7])));
        let place = parse_place("-1,2um").unwrap().0;
        assert!(place[0].is_nan() && place[1..] == [-1.0, 2.0]);
        assert!(parse_place("1").unwrap_err().contains("or two along y,x for a plane"));
        for text in ["1,0", "1,2,0", "1,2,3,4", "1,2,-3", "64", "100000,100000,100000"] {
            assert!(parse_size3(text).is_err(), "{text}");
        }
        assert_eq!(parse_shape3("100000,100000,100000"), Ok([100_000; 3]));
        for text in ["1000000000,1000000000,1000000000", "1,1,18446744073709551615", "1,0,1"] {
            assert!(parse_shape3(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        assert_eq!(parse_device("auto"), Ok(Device::Cpu));
        assert!(parse_device("cuda:1").unwrap_err().contains("CPU only"));
        assert!(parse_device("gpu").unwrap_err().contains("cuda"));
    }
}
