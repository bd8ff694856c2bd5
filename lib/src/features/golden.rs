//! The exact detector compared with the key points of BigStream 2021.

use std::collections::HashSet;

use super::testing::{crop, read_n5, read_npz};
use super::{Options, detect_in_memory};
use crate::geom::Box3;
use crate::golden::shared;

/// Key points as `(z, y, x, intensity)`.
fn reference(folder: &str, name: &str) -> HashSet<[i64; 4]> {
    let file = shared(&format!("reference/bigstream/{folder}"));
    let rows = read_npz(&file, name);
    rows.chunks_exact(4).map(|r| [r[2], r[1], r[0], r[3]]).collect()
}

fn detect(voxels: &[f32], shape: [usize; 3], options: &Options) -> HashSet<[i64; 4]> {
    let spots = detect_in_memory(voxels, shape, [1.68, 1.84, 1.84], options).unwrap();
    let key = |v: f64| v as i64;
    let points = spots.iter().map(|s| {
        let [z, y, x] = s.position.map(key);
        [z, y, x, key(s.intensity)]
    });
    points.collect()
}

/// The number of key points in both sets, divided by the number in at least one of them.
fn agreement(found: &HashSet<[i64; 4]>, wanted: &HashSet<[i64; 4]>) -> f64 {
    found.intersection(wanted).count() as f64 / found.union(wanted).count() as f64
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn exact_spots_of_the_tutorial_are_those_of_bigstream() {
    let data = shared("data/bigstream-tutorial");
    let options = Options { max_spots: usize::MAX, ..Options::exact() };
    for (volume, name, count) in [("fix", "fix_spots", 5587), ("mov", "mov_spots", 4507)] {
        let wanted = reference("tutorial_global_2021/keypoints_matches_affine.npz", name);
        assert_eq!(wanted.len(), count);
        let (voxels, shape) = read_n5(&data.join(format!("{volume}.n5")), "lowres");
        let found = detect(&voxels, shape, &options);
        let same = agreement(&found, &wanted);
        eprintln!("{volume}: {} found, {count} wanted, agreement {same:.5}", found.len());
        assert!(same >= 0.995, "{volume}: agreement {same}");
    }
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn exact_spots_of_crops_are_those_of_bigstream() {
    let data = shared("data/bigstream-tutorial");
    let options = Options { radius: [6.0, 16.0], ..Options::exact() };
    for (volume, name, part) in [
        ("fix", "fix_spots", Box3::new([20, 64, 176], [120, 192, 304])),
        ("mov", "mov_spots", Box3::new([16, 50, 130], [116, 178, 258])),
    ] {
        let wanted = reference("keypoints_affine_2021_crop/outputs.npz", name);
        let (voxels, shape) = read_n5(&data.join(format!("{volume}.n5")), "lowres");
        let found = detect(&crop(&voxels, shape, &part), part.shape(), &options);
        let same = agreement(&found, &wanted);
        eprintln!("{volume}: {} found, {} wanted, agreement {same:.5}", found.len(), wanted.len());
        assert!(same >= 0.995, "{volume}: agreement {same}");
    }
}
