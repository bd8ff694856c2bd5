use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::blocks::write_whole;
use crate::geom::{Chain, Point};
use crate::store::document;
use crate::transform;
use crate::volume::{Select, Volume};

/// Statistics of a set of errors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Maximum.
    pub max: f64,
    /// Mean.
    pub mean: f64,
}

/// Errors of a transform: distances between the true and the transformed positions of objects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Number of objects measured: those visible in both volumes at which the transform is defined.
    pub points: usize,
    /// Number of objects visible in both volumes at which the transform is undefined. They are
    /// excluded from the statistics.
    pub unknown: usize,
    /// Errors in micrometres.
    pub um: Spread,
    /// Errors in voxels of the moving volume.
    pub voxels: Spread,
}

impl Score {
    /// Formats the score as indented JSON with a final newline.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }
}

/// The file of the objects that both volumes of a pair show.
const POINTS: &str = "truth_points.csv";
/// Edge length, in micrometres, of the cells in which points are evaluated together. It bounds how
/// much of a displacement field is in memory at a time.
const CELL: f64 = 128.0;

#[derive(Debug, Serialize, Deserialize)]
struct PointRow {
    fixed_z_um: f64,
    fixed_y_um: f64,
    fixed_x_um: f64,
    moving_z_um: f64,
    moving_y_um: f64,
    moving_x_um: f64,
}

/// Measures the chain in the files `transforms` (applied in this order) against the ground truth
/// that [`super::rounds`] wrote into the folder `truth`.
///
/// # Errors
/// [`Error`] if the ground truth or a transform cannot be read.
pub fn score(truth: &Path, transforms: &[String]) -> Result<Score, Error> {
    let path = truth.join(POINTS);
    if !crate::store::exists(&path) {
        let path = truth.display().to_string();
        let message = format!(
            "holds neither {POINTS} nor {}; give the folder that `phantom rounds`, `phantom sections` or `phantom tiles` wrote",
            super::sections::TRUTH
        );
        return Err(Error::Truth { path, message });
    }
    let points = read_points(&path)?;
    let moving = truth.join("moving.zarr");
    let spacing = Volume::open(&moving.to_string_lossy(), &Select::default())?.grid().spacing;
    of_points(&points, &transform::read_chain(transforms)?, spacing)
}

/// The errors of `chain` at pairs of a fixed and a moving position, micrometres.
fn of_points(points: &[[Point; 2]], chain: &Chain, spacing: Point) -> Result<Score, Error> {
    let mut cells: BTreeMap<[i64; 3], Vec<&[Point; 2]>> = BTreeMap::new();
    for pair in points {
        cells.entry(pair[0].map(|v| (v / CELL).floor() as i64)).or_default().push(pair);
    }
    let (mut um, mut voxels, mut unknown) = (Vec::new(), Vec::new(), 0);
    for cell in cells.values() {
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for [p, _] in cell {
            for a in 0..3 {
                extent[0][a] = extent[0][a].min(p[a]);
                extent[1][a] = extent[1][a].max(p[a]);
            }
        }
        let (local, _) = chain.localise(extent).map_err(Error::Field)?;
        for &&[p, q] in cell {
            let got = local.apply(p);
            let miss: Point = std::array::from_fn(|a| got[a] - q[a]);
            if miss.iter().all(|v| v.is_finite()) {
                um.push(length(miss));
                voxels.push(length(std::array::from_fn(|a| miss[a] / spacing[a])));
            } else {
                unknown += 1;
            }
        }
    }
    Ok(Score { points: um.len(), unknown, um: Spread::of(um), voxels: Spread::of(voxels) })
}

fn length(v: Point) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

impl Spread {
    /// Statistics of `values`; all statistics are 0 if there are no values.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len().max(1) - 1) as f64;
            values.get(place.round() as usize).copied().unwrap_or(0.0)
        };
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        Self { median: at(0.5), p95: at(0.95), max: at(1.0), mean }
    }
}

/// Writes pairs of a fixed and a moving position as CSV, atomically.
pub(super) fn write_points(path: &Path, points: &[[Point; 2]]) -> Result<(), Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let broken = |message: String| Error::Truth { path: path.display().to_string(), message };
    for [p, q] in points {
        // rounded to a thousandth of a nanometre
        let round = |v: f64| (v * 1e6).round() / 1e6;
        let row = PointRow {
            fixed_z_um: round(p[0]),
            fixed_y_um: round(p[1]),
            fixed_x_um: round(p[2]),
            moving_z_um: round(q[0]),
            moving_y_um: round(q[1]),
            moving_x_um: round(q[2]),
        };
        writer.serialize(row).map_err(|e| broken(e.to_string()))?;
    }
    let text = writer.into_inner().map_err(|e| broken(e.to_string()))?;
    Ok(write_whole(path, &text)?)
}

fn read_points(path: &Path) -> Result<Vec<[Point; 2]>, Error> {
    let name = path.display().to_string();
    let text = document::read(path).map_err(super::io("read", path))?;
    csv::Reader::from_reader(&*text)
        .deserialize()
        .map(|row| {
            let r: PointRow = row.map_err(|e| Error::Truth {
                path: name.clone(),
                message: format!("{e}; wanted the truth_points.csv that `phantom rounds` writes"),
            })?;
            Ok([
                [r.fixed_z_um, r.fixed_y_um, r.fixed_x_um],
                [r.moving_z_um, r.moving_y_um, r.moving_x_um],
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Affine;

    #[test]
    fn a_constant_miss_is_every_statistic_in_both_units() {
        let points: Vec<[Point; 2]> = (0..500)
            .map(|i| {
                let p = [f64::from(i) * 0.7, f64::from(i % 17), f64::from(i % 31) * 9.0];
                [p, [p[0] + 1.0, p[1] + 2.0, p[2] + 3.0]]
            })
            .collect();
        let chain = Chain::affine(Affine::translation([1.0, 2.0, 2.5]));
        let score = of_points(&points, &chain, [1.0, 1.0, 0.25]).unwrap();
        assert_eq!((score.points, score.unknown), (500, 0));
        for (spread, want) in [(score.um, 0.5), (score.voxels, 2.0)] {
            for value in [spread.median, spread.p95, spread.max, spread.mean] {
                assert!((value - want).abs() < 1e-9, "{value}");
            }
        }
    }

    #[test]
    fn points_are_read_as_written_and_a_foreign_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth_points.csv");
        let points = vec![[[1.25, 2.0, 3.0], [4.0, 5.5, -6.125]], [[0.0; 3], [1e3; 3]]];
        write_points(&path, &points).unwrap();
        assert_eq!(read_points(&path).unwrap(), points);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let message = read_points(&path).unwrap_err().to_string();
        assert!(message.contains("phantom rounds"), "{message}");
    }
}
