//! elastix' transform parameter files (elastix manual, chapter 6): one `(Key value ...)` per line,
//! chained by `InitialTransformParameterFileName`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bspline::BSpline;
use super::map_steps::{MapStep, SmoothMap};
use super::read_error::ReadError;
use super::world::{Placement, World};
use super::{itk, models};
use crate::files;
use crate::fingerprint::Fingerprint;
use crate::geom::{Affine, Grid, Point};
use crate::quote::shorten;

/// Maximum number of chained files.
const MAX_CHAIN: usize = 64;

/// The entries of a file, with quotes removed from strings.
struct Entries(BTreeMap<String, Vec<String>>);

/// Whether a text begins like a parameter file.
pub(super) fn is_parameter_file(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with("//"));
    first.is_some_and(|line| {
        line.starts_with('(') && line.contains(' ') && text.contains("(Transform \"")
    })
}

impl Entries {
    fn parse(text: &str) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let inner = line.strip_prefix('(').and_then(|l| l.strip_suffix(')'));
            let inner = inner.ok_or_else(|| format!("line {} is no (Key value ...)", i + 1))?;
            let mut words = words(inner).into_iter();
            if let Some(key) = words.next() {
                entries.insert(key, words.collect());
            }
        }
        Ok(Self(entries))
    }

    fn word(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, String> {
        let words = self.0.get(key).ok_or_else(|| format!("has no ({key} ...)"))?;
        let number = |word: &String| {
            word.parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(|| {
                format!("has '{}' in ({key} ...), wanted finite numbers", shorten(word))
            })
        };
        words.iter().map(number).collect()
    }
}

/// Splits a line at white space; a quoted string is a single word.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Reads the maps of a file and of its initial transforms, in the order of application.
pub(super) fn read(path: &Path, world: World) -> Result<Vec<MapStep>, ReadError> {
    read_chain(path, world, &mut Vec::new())
}

/// Reads a file and its initial transforms. `readers` are the files that led here: each names the
/// next one as its initial transform, and the last one names this file.
fn read_chain(
    path: &Path,
    world: World,
    readers: &mut Vec<PathBuf>,
) -> Result<Vec<MapStep>, ReadError> {
    let text = crate::store::document::read_text(path)
        .map_err(|e| ReadError::because(format!("{} cannot be read: {e}", path.display()), e))?;
    let entries = Entries::parse(&text)?;
    let own = match entries.word("Transform") {
        Some("File") => from_file(path, &entries, world)?,
        _ => vec![transform(&entries, world)?],
    };
    let initial = ["InitialTransformParameterFileName", "InitialTransformParametersFileName"]
        .iter()
        .find_map(|key| entries.word(key))
        .filter(|name| !name.is_empty() && *name != "NoInitialTransform");
    let Some(initial) = initial else { return Ok(own) };
    let first =
        find(path, initial).map_err(|e| e.within(|message| format!("begins with {message}")))?;
    readers.push(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    if first.canonicalize().is_ok_and(|first| readers.contains(&first)) {
        return Err(format!(
            "begins with {}, which begins with it: no transform is the first; correct the \
             InitialTransformParametersFileName of one of them",
            shorten(initial)
        )
        .into());
    }
    if readers.len() > MAX_CHAIN {
        return Err(format!(
            "is the last of more than {MAX_CHAIN} files that begin with each other"
        )
        .into());
    }
    let before = read_chain(&first, world, readers)
        .map_err(|e| e.within(|message| in_file(message, &first)))?;
    match entries.word("HowToCombineTransforms").unwrap_or("Compose") {
        "Compose" => Ok(before.into_iter().chain(own).collect()),
        "Add" => Ok(vec![add(before, own)?]),
        other => {
            Err(format!("combines transforms by '{}', wanted Compose or Add", shorten(other))
                .into())
        }
    }
}

/// Reads the ITK transform file that a parameter file refers to; elastix writes such files with
/// `ITKTransformOutputFileNameExtension`.
fn from_file(path: &Path, entries: &Entries, world: World) -> Result<Vec<MapStep>, ReadError> {
    let name = entries.word("TransformFileName").filter(|name| !name.is_empty());
    let name = name.ok_or("has (Transform \"File\") and no (TransformFileName ...)")?;
    let file = find(path, name).map_err(|e| e.within(|message| format!("refers to {message}")))?;
    itk::read_file(&file, world)
        .map_err(|e| e.within(|message| format!("refers to {}, which {message}", shorten(name))))
}

/// A message about `file`, with its name unless the message ends with the name of another file.
fn in_file(message: &str, file: &Path) -> String {
    if message.ends_with(')') {
        message.to_owned()
    } else {
        format!("{message} (in {})", file.display())
    }
}

/// Finds the file `initial`, to which the file `path` refers: at the path as written or, because
/// results are often moved, in the folder of `path`.
fn find(path: &Path, initial: &str) -> Result<PathBuf, ReadError> {
    let in_same_folder = |name: &Path| path.with_file_name("").join(name);
    let written = Path::new(initial);
    let name = written.file_name().map_or(written, Path::new);
    let places = [written.to_owned(), in_same_folder(written), in_same_folder(name)];
    let refused = |reason: &str| format!("{}, which {reason}", shorten(initial));
    for place in places {
        if files::is_file(&place).map_err(|e| ReadError::io(e).within(refused))? {
            return Ok(place);
        }
    }
    Err(refused("is not there; put it beside this file").into())
}

fn transform(entries: &Entries, world: World) -> Result<MapStep, String> {
    let name = entries.word("Transform").ok_or("has no (Transform \"...\")")?;
    let axes = match entries.word("FixedImageDimension") {
        Some("2") => 2,
        Some("3") => 3,
        other => {
            let found =
                other.map_or_else(|| "no".to_owned(), |other| format!("'{}' as", shorten(other)));
            return Err(format!("has {found} FixedImageDimension, wanted 2 or 3"));
        }
    };
    if entries.word("UseBinaryFormatForTransformationParameters") == Some("true") {
        return Err(
            "has its parameters in a binary file beside it, which is not read; write it with \
                    (UseBinaryFormatForTransformationParameters \"false\")"
                .to_owned(),
        );
    }
    if name == "DeformationFieldTransform" {
        let file = entries.word("DeformationFieldFileName").unwrap_or_default();
        return Err(format!(
            "is the displacement field '{}'; give that file itself to transcode",
            shorten(file)
        ));
    }
    let parameters = entries.numbers("TransformParameters")?;
    let class = match (name, axes) {
        ("BSplineTransform" | "RecursiveBSplineTransform", _) => {
            return spline(entries, axes, &parameters, world);
        }
        ("EulerTransform", 2) => "Euler2DTransform",
        ("EulerTransform", _) => "Euler3DTransform",
        ("SimilarityTransform", 2) => "Similarity2DTransform",
        ("SimilarityTransform", _) => "Similarity3DTransform",
        ("AffineTransform", _) => "AffineTransform",
        ("TranslationTransform", _) => "TranslationTransform",
        (other, _) => {
            return Err(format!(
                "is a {}; translation, Euler, similarity, affine and B-spline transforms and those in a file of \
                 ITK can be read",
                shorten(other)
            ));
        }
    };
    let mut fixed = match class {
        "TranslationTransform" => Vec::new(),
        _ => entries.numbers("CenterOfRotationPoint")?,
    };
    if class == "Euler3DTransform" {
        let zyx = entries.word("ComputeZYX") == Some("true");
        fixed.resize(4, 0.0);
        fixed[3] = f64::from(zyx);
    }
    let (linear, offset) = models::matrix(class, axes, &parameters, &fixed)
        .ok_or_else(|| format!("is a {name} of {axes} axes, which is not known"))??;
    let map = world.map(&linear, offset);
    map.inverse().map_err(|e| e.to_string())?;
    Ok(MapStep::Affine(map))
}

fn spline(
    entries: &Entries,
    axes: usize,
    parameters: &[f64],
    world: World,
) -> Result<MapStep, String> {
    if entries.word("UseCyclicTransform") == Some("true") {
        return Err("is a cyclic B-spline, which cannot be read".to_owned());
    }
    let three = |key: &str, rest: f64| -> Result<[f64; 3], String> {
        let values = entries.numbers(key)?;
        if values.len() != axes {
            return Err(format!("has {} numbers in ({key} ...), wanted {axes}", values.len()));
        }
        Ok(std::array::from_fn(|a| values.get(a).copied().unwrap_or(rest)))
    };
    let size = three("GridSize", 1.0)?;
    let (spacing, origin, index) =
        (three("GridSpacing", 1.0)?, three("GridOrigin", 0.0)?, three("GridIndex", 0.0)?);
    let mut cosines = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    if let Ok(direction) = entries.numbers("GridDirection") {
        if direction.len() != axes * axes {
            return Err(format!("has {} numbers in (GridDirection ...)", direction.len()));
        }
        // the matrix is stored column by column
        for (i, value) in direction.iter().enumerate() {
            cosines[i % axes][i / axes] = *value;
        }
    }
    if size.iter().any(|n| !(1.0..=1e6).contains(n)) {
        return Err(format!("has a GridSize of {size:?}"));
    }
    let shape = [size[2] as usize, size[1] as usize, size[0] as usize];
    let mut placement = Placement::new(shape, spacing, origin, &cosines);
    for a in 0..3 {
        for c in 0..3 {
            placement.origin[c] += index[a] * placement.steps[a][c];
        }
    }
    let order = match entries.word("BSplineTransformSplineOrder") {
        Some(word) => {
            word.parse().map_err(|_| format!("has the spline order '{}'", shorten(word)))?
        }
        None => 3,
    };
    Ok(MapStep::Smooth(Arc::new(BSpline::new(&placement, world, order, axes, parameters)?)))
}

/// The map `p -> before(p) + own(p) - p`.
struct SumOfMaps {
    before: Vec<MapStep>,
    own: Vec<MapStep>,
}

impl SmoothMap for SumOfMaps {
    fn add_to(&self, fingerprint: &mut Fingerprint) {
        fingerprint.add(b"sum");
        fingerprint.add_counts([self.before.len() as u64]);
        for piece in self.before.iter().chain(&self.own) {
            match piece {
                MapStep::Affine(map) => {
                    fingerprint.add_numbers(map.rows().concat());
                }
                MapStep::Smooth(warp) => warp.add_to(fingerprint),
                // other pieces are refused in `add`
                MapStep::ForeignField(_) | MapStep::Native(_) => {}
            }
        }
    }

    fn apply(&self, p: Point) -> Point {
        let before = self.before.iter().fold(p, |p, piece| image(piece, p));
        let own = self.own.iter().fold(p, |p, piece| image(piece, p));
        std::array::from_fn(|a| before[a] + own[a] - p[a])
    }
}

/// Maps `p` by a matrix or a spline.
fn image(piece: &MapStep, p: Point) -> Point {
    match piece {
        MapStep::Affine(map) => map.apply(p),
        MapStep::Smooth(warp) => warp.apply(p),
        MapStep::ForeignField(_) | MapStep::Native(_) => p,
    }
}

fn add(before: Vec<MapStep>, own: Vec<MapStep>) -> Result<MapStep, String> {
    let known = |piece: &MapStep| matches!(piece, MapStep::Affine(_) | MapStep::Smooth(_));
    if !before.iter().chain(&own).all(known) {
        return Err(
            "adds a displacement field, which cannot be read; write it to Compose".to_owned()
        );
    }
    let matrix = |pieces: &[MapStep]| {
        pieces.iter().try_fold(Affine::IDENTITY, |sum, piece| match piece {
            MapStep::Affine(map) => Some(sum.then(map)),
            _ => None,
        })
    };
    let (Some(first), Some(second)) = (matrix(&before), matrix(&own)) else {
        return Ok(MapStep::Smooth(Arc::new(SumOfMaps { before, own })));
    };
    let (a, b, unit) = (first.rows(), second.rows(), Affine::IDENTITY.rows());
    let sum = Affine::from_rows(std::array::from_fn(|r| {
        std::array::from_fn(|c| a[r][c] + b[r][c] - unit[r][c])
    }));
    sum.inverse().map_err(|e| e.to_string())?;
    Ok(MapStep::Affine(sum))
}

/// Formats a matrix as a parameter file for transformix, which resamples onto the fixed image's
/// grid `onto`; the file has two axes if `onto` is a plane.
///
/// # Errors
/// A message if `onto` is a plane and the matrix maps points out of it.
pub(super) fn write(map: &Affine, world: World, onto: &Grid) -> Result<String, String> {
    let axes = if onto.planar { 2 } else { 3 };
    let [into, down, across] = map.rows();
    if axes == 2 && (into != [1.0, 0.0, 0.0, 0.0] || down[0] != 0.0 || across[0] != 0.0) {
        return Err("takes points out of the plane that --onto is; give a volume".to_owned());
    }
    let (linear, offset) = world.to_external_map(map);
    let join = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    let rows = linear[..axes].iter().flat_map(|row| &row[..axes]);
    let numbers: Vec<f64> = rows.chain(&offset[..axes]).copied().collect();
    let size: Vec<String> = onto.shape.iter().rev().take(axes).map(usize::to_string).collect();
    let mut spacing = world.to_external_vector(onto.spacing);
    spacing.iter_mut().for_each(|s| *s = s.abs());
    let unit = if axes == 2 { "1 0 0 1" } else { "1 0 0 0 1 0 0 0 1" };
    let lines = [
        ("Transform", "\"AffineTransform\"".to_owned()),
        ("NumberOfParameters", numbers.len().to_string()),
        ("TransformParameters", join(&numbers)),
        ("InitialTransformParameterFileName", "\"NoInitialTransform\"".to_owned()),
        ("UseBinaryFormatForTransformationParameters", "\"false\"".to_owned()),
        ("HowToCombineTransforms", "\"Compose\"".to_owned()),
        ("CenterOfRotationPoint", ["0"; 3][..axes].join(" ")),
        ("FixedImageDimension", axes.to_string()),
        ("MovingImageDimension", axes.to_string()),
        ("FixedInternalImagePixelType", "\"float\"".to_owned()),
        ("MovingInternalImagePixelType", "\"float\"".to_owned()),
        ("Size", size.join(" ")),
        ("Index", ["0"; 3][..axes].join(" ")),
        ("Spacing", join(&spacing[..axes])),
        ("Origin", join(&world.to_external_vector(onto.origin)[..axes])),
        ("Direction", unit.to_owned()),
        ("UseDirectionCosines", "\"true\"".to_owned()),
        ("ResampleInterpolator", "\"FinalBSplineInterpolator\"".to_owned()),
        ("FinalBSplineInterpolationOrder", "1".to_owned()),
        ("Resampler", "\"DefaultResampler\"".to_owned()),
        ("DefaultPixelValue", "0".to_owned()),
        ("ResultImageFormat", "\"nii\"".to_owned()),
        ("ResultImagePixelType", "\"float\"".to_owned()),
        ("CompressResultImage", "\"false\"".to_owned()),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        let _ = writeln!(text, "({key} {value})"); // writing to a String cannot fail
    }
    Ok(text)
}
