//! BigWarp's landmarks: a CSV without a header, `name, active, moving x, y[, z], fixed x, y[, z]`.

use std::fmt::Write as _;
use std::sync::Arc;

use super::map_steps::MapStep;
use super::tps::ThinPlate;
use super::world::World;
use crate::geom::{Affine, Model, Point, fit};
use crate::quote::shorten;

/// The map that is fitted to landmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum LandmarkModel {
    /// Thin-plate spline through all landmarks, BigWarp's default.
    #[default]
    Tps,
    /// Any affine map, by least squares.
    Affine,
    /// Translation, rotation and one scale.
    Similarity,
    /// Translation and rotation.
    Rigid,
    /// Translation.
    Translation,
}

impl LandmarkModel {
    /// The name of the model in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tps => "thin-plate spline",
            Self::Affine => "affine",
            Self::Similarity => "similarity",
            Self::Rigid => "rigid",
            Self::Translation => "translation",
        }
    }
}

/// The active landmarks, `[z, y, x]` micrometres.
struct Landmarks {
    axes: usize,
    moving: Vec<Point>,
    fixed: Vec<Point>,
}

/// The result of a fit to landmarks.
pub(super) struct Fitted {
    pub(super) piece: MapStep,
    /// Number of active landmarks.
    pub(super) count: usize,
    /// Number of axes: 2 for landmarks in a plane, else 3.
    pub(super) axes: usize,
}

/// Whether a text begins like a landmark file.
pub(super) fn is_landmarks(text: &str) -> bool {
    let Some(line) = text.lines().find(|line| !line.trim().is_empty()) else { return false };
    let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
    matches!(cells.len(), 6 | 8)
        && matches!(cells[1], "true" | "false")
        && cells[2..].iter().all(|cell| cell.parse::<f64>().is_ok() || cell.ends_with("Infinity"))
}

/// The map from the fixed to the moving landmarks or, with `swap`, from moving to fixed.
///
/// As in BigWarp, a spline is computed from fixed to moving, the direction of rendering, and
/// matrices are fitted from moving to fixed; the matrices are then inverted.
pub(super) fn read(
    text: &str,
    world: World,
    model: LandmarkModel,
    swap: bool,
) -> Result<Fitted, String> {
    let mut landmarks = parse(text, world)?;
    if swap {
        std::mem::swap(&mut landmarks.moving, &mut landmarks.fixed);
    }
    let Landmarks { axes, moving, fixed } = landmarks;
    let count = fixed.len();
    let model = match model {
        LandmarkModel::Tps => {
            let spline = ThinPlate::through(&fixed, &moving, axes)?;
            return Ok(Fitted { piece: MapStep::Smooth(Arc::new(spline)), count, axes });
        }
        LandmarkModel::Affine => Model::Affine,
        LandmarkModel::Similarity => Model::Similarity,
        LandmarkModel::Rigid => Model::Rigid,
        LandmarkModel::Translation => Model::Translation,
    };
    let map = if axes == 3 {
        fit(model, &moving, &fixed, None, false).map_err(|e| e.to_string())?
    } else {
        in_plane(model, &moving, &fixed)?
    };
    let back = map.inverse().map_err(|e| format!("the landmarks give no map: {e}"))?;
    Ok(Fitted { piece: MapStep::Affine(back), count, axes })
}

fn parse(text: &str, world: World) -> Result<Landmarks, String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut landmarks = Landmarks { axes: 0, moving: Vec::new(), fixed: Vec::new() };
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(|e| format!("row {}: {e}", i + 1))?;
        let cells: Vec<&str> = record.iter().map(str::trim).collect();
        if cells.iter().all(|cell| cell.is_empty()) {
            continue;
        }
        let axes = match cells.len() {
            6 => 2,
            8 => 3,
            n => return Err(format!("row {} has {n} cells, wanted 6 (2-D) or 8 (3-D)", i + 1)),
        };
        if landmarks.axes != 0 && landmarks.axes != axes {
            return Err(format!(
                "row {} is {axes}-D, the rows before it {}-D",
                i + 1,
                landmarks.axes
            ));
        }
        landmarks.axes = axes;
        if cells[1] == "false" {
            continue;
        }
        let number = |cell: &&str| {
            cell.parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(|| {
                format!(
                    "row {} holds '{}', wanted a finite number in each landmark that is true",
                    i + 1,
                    shorten(cell)
                )
            })
        };
        let numbers: Vec<f64> = cells[2..].iter().map(number).collect::<Result<_, _>>()?;
        let point = |p: &[f64]| world.vector([p[0], p[1], p.get(2).copied().unwrap_or(0.0)]);
        landmarks.moving.push(point(&numbers[..axes]));
        landmarks.fixed.push(point(&numbers[axes..]));
    }
    if landmarks.fixed.is_empty() {
        return Err("holds no landmark that is true".to_owned());
    }
    Ok(landmarks)
}

/// Like [`fit`], but for points with z = 0. The map leaves z unchanged.
fn in_plane(model: Model, from: &[Point], to: &[Point]) -> Result<Affine, String> {
    let count = from.len() as f64;
    let mean = |points: &[Point]| -> [f64; 2] {
        std::array::from_fn(|a| points.iter().map(|p| p[a + 1]).sum::<f64>() / count)
    };
    let (middle, onto) = (mean(from), mean(to));
    let wanted = match model {
        Model::Translation => 1,
        Model::Rigid | Model::Similarity => 2,
        Model::Affine | Model::PlanarAffine => 3,
    };
    if from.len() < wanted {
        return Err(format!("{count} pairs of points, and the model needs {wanted}"));
    }
    // second moments about the means
    let (mut xx, mut yx) = ([[0.0; 2]; 2], [[0.0; 2]; 2]);
    for (p, q) in from.iter().zip(to) {
        for r in 0..2 {
            for c in 0..2 {
                xx[r][c] += (p[r + 1] - middle[r]) * (p[c + 1] - middle[c]);
                yx[r][c] += (q[r + 1] - onto[r]) * (p[c + 1] - middle[c]);
            }
        }
    }
    let [[a, b], [c, d]] = yx;
    let (cosine, sine, trace) = (a + d, c - b, xx[0][0] + xx[1][1]);
    let length = cosine.hypot(sine);
    let flat = |v: f64| !(v > 1e-12 * trace);
    let turn = |scale: f64| [[cosine * scale, -sine * scale], [sine * scale, cosine * scale]];
    let linear = match model {
        Model::Translation => [[1.0, 0.0], [0.0, 1.0]],
        Model::Rigid | Model::Similarity if flat(length) => {
            return Err("the landmarks determine no rotation".to_owned());
        }
        Model::Rigid => turn(1.0 / length),
        Model::Similarity => turn(1.0 / trace),
        Model::Affine | Model::PlanarAffine => {
            let determinant = xx[0][0] * xx[1][1] - xx[0][1] * xx[1][0];
            if flat(determinant / trace) {
                return Err("the landmarks lie on a line: they determine no affine map".to_owned());
            }
            let [[p, q], [r, s]] = xx.map(|row| row.map(|v| v / determinant));
            [[a * s - b * r, b * p - a * q], [c * s - d * r, d * p - c * q]]
        }
    };
    let offset = |r: usize| onto[r] - linear[r][0] * middle[0] - linear[r][1] * middle[1];
    Ok(Affine::from_rows([
        [1.0, 0.0, 0.0, 0.0],
        [0.0, linear[0][0], linear[0][1], offset(0)],
        [0.0, linear[1][0], linear[1][1], offset(1)],
    ]))
}

/// Formats pairs of fixed and moving points as landmarks; with 2 `axes`, z is left out.
pub(super) fn write(fixed: &[Point], moving: &[Point], world: World, axes: usize) -> String {
    let mut text = String::new();
    for (i, (fixed, moving)) in fixed.iter().zip(moving).enumerate() {
        let _ = write!(text, "\"Pt-{i}\",\"true\""); // writing to a String cannot fail
        for value in [moving, fixed]
            .into_iter()
            .flat_map(|p| world.to_external_vector(*p).into_iter().take(axes))
        {
            let _ = write!(text, ",\"{value}\"");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::world::AnatomicalFrame;
    use super::*;

    const WORLD: World = World { frame: AnatomicalFrame::Lps, micrometres: 1.0 };

    fn apply(piece: &MapStep, p: Point) -> Point {
        match piece {
            MapStep::Affine(map) => map.apply(p),
            MapStep::Smooth(warp) => warp.apply(p),
            _ => p,
        }
    }

    /// Landmarks whose moving points are `map` of the fixed points; with 2 `axes`, z is 0.
    fn landmarks(map: &Affine, axes: usize) -> (String, Vec<Point>) {
        let depth = |i: usize| if axes == 3 { (i * i % 7) as f64 } else { 0.0 };
        let fixed: Vec<Point> =
            (0..9).map(|i| [depth(i), (i * 5 % 9) as f64, (i * 7 % 8) as f64]).collect();
        let moving: Vec<Point> = fixed.iter().map(|p| map.apply(*p)).collect();
        (write(&fixed, &moving, WORLD, axes), fixed)
    }

    #[test]
    fn every_model_finds_its_own_map_in_space_and_in_a_plane() {
        let (sin, cos) = 0.3f64.sin_cos();
        for axes in [2, 3] {
            for (model, scale, shear) in [
                (LandmarkModel::Tps, 1.3, 0.2),
                (LandmarkModel::Affine, 1.3, 0.2),
                (LandmarkModel::Similarity, if axes == 2 { 1.3 } else { 1.0 }, 0.0),
                (LandmarkModel::Rigid, 1.0, 0.0),
            ] {
                let map = Affine::from_rows([
                    [1.0, 0.0, 0.0, 0.0],
                    [0.0, scale * cos, -scale * sin + shear, 4.0],
                    [0.0, scale * sin, scale * cos, -5.0],
                ]);
                let (text, fixed) = landmarks(&map, axes);
                assert!(is_landmarks(&text));
                let Fitted { piece, count, .. } = read(&text, WORLD, model, false).unwrap();
                let back = read(&text, WORLD, model, true).unwrap().piece;
                assert_eq!(count, 9);
                for p in fixed {
                    let (q, want) = (apply(&piece, p), map.apply(p));
                    assert!((0..3).all(|a| (q[a] - want[a]).abs() < 1e-9), "{model:?} {axes}");
                    let home = apply(&back, q);
                    assert!((0..3).all(|a| (home[a] - p[a]).abs() < 1e-9), "{model:?} {axes}");
                }
            }
        }
    }

    #[test]
    fn a_landmark_that_is_false_counts_for_nothing() {
        let (text, _) = landmarks(&Affine::translation([0.0, 3.0, 1.0]), 2);
        let more = format!("{text}\"Pt-9\",\"false\",\"Infinity\",\"Infinity\",\"5\",\"6\"\n");
        let Fitted { piece, count, .. } = read(&more, WORLD, LandmarkModel::Affine, false).unwrap();
        assert_eq!(count, 9);
        assert!((apply(&piece, [0.0; 3])[1] - 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_with_landmarks_is_said_with_its_row() {
        let refusal = |text: &str, model| read(text, WORLD, model, false).err().unwrap();
        assert!(
            refusal("a,true,1,2,3,4\nb,true,1,2,3\n", LandmarkModel::Tps)
                .contains("row 2 has 5 cells")
        );
        assert!(refusal("a,true,1,2,NaN,4\n", LandmarkModel::Tps).contains("row 1 holds 'NaN'"));
        assert!(
            refusal("a,false,1,2,3,4\n", LandmarkModel::Tps).contains("no landmark that is true")
        );
        let line = "a,true,1,1,1,1\nb,true,2,2,2,2\nc,true,3,3,3,3\n";
        assert!(refusal(line, LandmarkModel::Affine).contains("on a line"));
        assert!(refusal(&line[..30], LandmarkModel::Affine).contains("2 pairs"));
    }
}
