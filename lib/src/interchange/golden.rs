//! Reads files written by other tools and compares where points are mapped with where those tools
//! map them (`tests/data/transforms/make.py`).

use std::path::{Path, PathBuf};

use super::export::open;
use super::map_steps::{self, EvaluableStep, MapStep};
use super::*;
use crate::geom::{Chain, Grid, Point};
use crate::golden::shared;
use crate::table;

fn data(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/transforms");
    folder.join(name).display().to_string()
}

fn points(name: &str) -> Vec<Point> {
    table::read_points(Path::new(&data(name))).unwrap().positions
}

/// All maps of a file; foreign fields are copied to native arrays.
fn stages(location: &str, reading: &Reading, folder: &Path) -> Vec<EvaluableStep> {
    let imported = reading::read(location, reading).unwrap();
    let stage = |(i, piece)| match piece {
        MapStep::Affine(map) => EvaluableStep::Chain(Chain::affine(map)),
        MapStep::Smooth(warp) => EvaluableStep::Smooth(warp),
        MapStep::Native(step) => EvaluableStep::Chain(open("", &[step]).unwrap()),
        MapStep::ForeignField(mut field) => {
            field.prepare(folder).unwrap();
            let location = folder.join(format!("{i}.zarr")).display().to_string();
            fields::copy_field(&*field, &location).unwrap();
            EvaluableStep::Chain(open("", &field.steps(&location)).unwrap())
        }
    };
    imported.pieces.into_iter().enumerate().map(stage).collect()
}

/// The largest deviation along an axis, in micrometres, between our mapped points and the tool's.
fn worst(file: &str, from: &str, to: &str, reading: &Reading) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut ours = points(from);
    map_steps::map_points(&stages(&data(file), reading, folder.path()), &mut ours).unwrap();
    let theirs = points(to);
    assert!(ours.len() == theirs.len() && !ours.is_empty());
    let distance =
        |(p, q): (&Point, &Point)| (0..3).map(|a| (p[a] - q[a]).abs()).fold(0.0, f64::max);
    ours.iter().zip(&theirs).map(distance).fold(0.0, f64::max)
}

#[test]
fn matrices_of_itk_take_points_where_itk_takes_them() {
    for name in [
        "itk_affine",
        "itk_euler",
        "itk_euler_zyx",
        "itk_translation",
        "itk_scale",
        "itk_versor",
        "itk_similarity",
        "itk_scale_versor",
        "itk_scale_skew_versor",
        "itk_compose_scale_skew_versor",
        "itk_composite",
        "itk_similarity_2d",
    ] {
        let off = worst(
            &format!("{name}.tfm"),
            "points.csv",
            &format!("{name}.csv"),
            &Reading::default(),
        );
        assert!(off < 1e-9, "{name}: {off}");
    }
    for file in ["itk_affine.txt", "itk_affine.mat", "itk_euler.mat"] {
        let to = format!("{}.csv", file.split('.').next().unwrap());
        let off = worst(file, "points.csv", &to, &Reading::default());
        assert!(off < 1e-9, "{file}: {off}");
    }
}

#[test]
fn splines_of_itk_take_points_where_itk_takes_them() {
    for name in ["itk_bspline", "itk_composite_bspline"] {
        let off = worst(
            &format!("{name}.tfm"),
            "points.csv",
            &format!("{name}.csv"),
            &Reading::default(),
        );
        assert!(off < 1e-9, "{name}: {off}");
    }
}

#[test]
fn fields_of_itk_take_points_where_itk_takes_them_whichever_way_their_axes_run() {
    for name in ["field", "field_turned", "field_mirrored"] {
        for (suffix, format) in [("nrrd", "nrrd"), ("nii", "nii"), ("nii.gz", "nii")] {
            let to = format!("{name}.{format}.csv");
            let off = worst(&format!("{name}.{suffix}"), "points.csv", &to, &Reading::default());
            assert!(off < 1e-5, "{name}.{suffix}: {off} um");
        }
    }
}

#[test]
fn elastix_takes_points_where_transformix_takes_them_to_its_last_digit() {
    for name in ["elastix_0", "elastix_1", "elastix_2", "elastix_3", "elastix_add"] {
        let (file, to) = (format!("{name}.txt"), format!("{name}.csv"));
        let off = worst(&file, "elastix_points.csv", &to, &Reading::default());
        assert!(off < 0.6e-3, "{name}: {off} um"); // transformix prints six decimals, in mm
    }
}

#[test]
fn greedys_matrix_and_warp_take_points_where_it_resliced_them_from() {
    let reading = Reading::default();
    for (file, to) in [("greedy.mat", "greedy.csv"), ("greedy_warp.nii.gz", "greedy_warp.csv")] {
        let off = worst(file, "greedy_points.csv", to, &reading);
        assert!(off < 1e-3, "{file}: {off} um"); // coordinates of some 10 mm in single precision
    }
    let folder = tempfile::tempdir().unwrap();
    let mut both = points("greedy_points.csv");
    for file in ["greedy_warp.nii.gz", "greedy.mat"] {
        map_steps::map_points(&stages(&data(file), &reading, folder.path()), &mut both).unwrap();
    }
    let off = both
        .iter()
        .zip(points("greedy_both.csv"))
        .flat_map(|(p, q)| (0..3).map(move |a| (p[a] - q[a]).abs()))
        .fold(0.0, f64::max);
    assert!(off < 1e-3, "{off}");
}

#[test]
fn landmarks_bend_space_as_itks_spline_does_of_which_bigwarps_is_a_translation() {
    for axes in [2, 3] {
        let file = format!("bigwarp_{axes}d.landmarks.csv");
        let (from, to) = (format!("bigwarp_{axes}d_points.csv"), format!("bigwarp_{axes}d.csv"));
        let off = worst(&file, &from, &to, &Reading::default());
        assert!(off < 1e-6, "{axes}: {off}");
    }
}

/// The path of real data, which cannot be distributed with the project.
fn real(name: &str) -> String {
    shared("data").join(name).display().to_string()
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn landmarks_that_bigwarp_wrote_are_met_by_their_spline() {
    for (file, count) in [
        ("mri-stack-translation-landmarks.csv", 5),
        ("mr_landmarks_p2p2p4-111.csv", 6),
        ("landmarks2d-blobs.csv", 5),
        ("testPoints.csv", 5),
    ] {
        let path = real(&format!("bigwarp-files/{file}"));
        assert_eq!(detect::source_of(&path).unwrap(), SourceFormat::Bigwarp);
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|l| !l.is_empty())
            .map(|l| l.split(',').skip(2).map(|c| c.trim_matches('"').parse().unwrap()).collect())
            .collect();
        let axes = rows[0].len() / 2;
        assert_eq!(rows.len(), count);
        let point = |p: &[f64]| [p.get(2).copied().unwrap_or(0.0), p[1], p[0]];
        let folder = tempfile::tempdir().unwrap();
        let stages = stages(&path, &Reading::default(), folder.path());
        for row in rows {
            let mut p = [point(&row[axes..])];
            map_steps::map_points(&stages, &mut p).unwrap();
            let want = point(&row[..axes]);
            assert!((0..3).all(|a| (p[0][a] - want[a]).abs() < 1e-6), "{file}: {p:?} {want:?}");
        }
    }
}

/// BigWarp's project file next to the landmarks contains a similarity from moving to fixed, which
/// was fitted before some landmarks were moved slightly.
#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn a_similarity_of_bigwarp_goes_the_way_that_bigwarp_says() {
    let path = real("bigwarp-files/mri-stack-translation-landmarks.csv");
    let reading =
        Reading { fit: Some(LandmarkModel::Similarity), invert: true, ..Reading::default() };
    let folder = tempfile::tempdir().unwrap();
    let mut p = [[135.0, 113.785_714, 78.047_619]]; // the first moving landmark
    map_steps::map_points(&stages(&path, &reading, folder.path()), &mut p).unwrap();
    let theirs = [133.0, 113.1, 13.1]; // x: 0.998 * 78.05 + ... - 64.66, from the project file
    assert!((0..3).all(|a| (p[0][a] - theirs[a]).abs() < 6.0), "{p:?}");
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_matrices_of_greedys_phantoms_are_rotations_in_millimetres() {
    for file in ["phantom01_rigid.mat", "t1longi_2d_rigid.mat", "circle_nzbkg_init.mat"] {
        let path = real(&format!("greedy-phantoms/{file}"));
        let imported = reading::read(&path, &Reading::default()).unwrap();
        let [MapStep::Affine(map)] = imported.pieces.as_slice() else {
            panic!("{file} is no matrix")
        };
        let parts = map.decompose();
        assert!(parts.scales.iter().all(|s| (s - 1.0).abs() < 1e-4), "{file}: {parts:?}");
        assert_eq!(imported.taken_as["frame"], "RAS");
        // offsets of tens of millimetres are more than 2000 um
        assert!(map.offset().iter().any(|v| v.abs() > 2000.0), "{file}");
    }
}

#[test]
fn a_sampled_spline_is_exact_at_the_nodes_of_its_grid() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let grid = Grid::new([5, 6, 7], [30.0, 35.0, 28.0], [20.0, 50.0, 25.0]);
    for (file, what) in
        [("itk_composite_bspline.tfm", "spline.json"), ("bigwarp_3d.landmarks.csv", "tps.json")]
    {
        let reading = Reading { onto: Some(grid), ..Reading::default() };
        let ctx = Context::default();
        transform(&data(file), &reading, &at(what), TargetFormat::Json, None, &ctx).unwrap();
        let chain = crate::transform::read_chain(&[at(what)]).unwrap();
        let nodes: Vec<Point> = map_steps::positions(&grid, &grid.bounds()).collect();
        let mut want = nodes.clone();
        map_steps::map_points(&stages(&data(file), &Reading::default(), folder.path()), &mut want)
            .unwrap();
        let mut got = nodes;
        map_steps::map_points(&[EvaluableStep::Chain(chain)], &mut got).unwrap();
        let off = got
            .iter()
            .zip(&want)
            .flat_map(|(p, q)| (0..3).map(move |a| (p[a] - q[a]).abs()))
            .fold(0.0, f64::max);
        assert!(off < 1e-5, "{file}: {off}"); // tens of micrometres in single precision
    }
}

#[test]
fn transforms_in_hdf5_take_points_where_itk_and_imglib2_take_them() {
    let off = worst("composite.h5", "points.csv", "composite.csv", &Reading::default());
    assert!(off < 1e-5, "{off} um"); // vectors in single precision
    // at the nodes of a field of integers with a multiplier of 0.001, followed by a matrix
    let folder = tempfile::tempdir().unwrap();
    let mut points = vec![[-15.0, -30.0, -20.0], [30.0, 20.0, 20.0]];
    let stages = stages(&data("warp.h5"), &Reading::default(), folder.path());
    map_steps::map_points(&stages, &mut points).unwrap();
    let wanted = table::read_points(Path::new(&data("warp.csv"))).unwrap().positions;
    for (p, q) in points.iter().zip(&wanted) {
        assert!((0..3).all(|a| (p[a] - q[a]).abs() < 1e-5), "{p:?}, wanted {q:?}");
    }
}
