//! Tests of stitching, on tiles of a known world.

use std::path::{Path, PathBuf};

use super::*;
use crate::phantom::{self, TilesScore};
use crate::volume::Select;

/// Planes of 3 x 3 tiles.
fn world() -> phantom::Tiles {
    phantom::Tiles {
        shape: [1, 500, 520],
        spacing: [0.05, 0.01, 0.01],
        tile: [192, 200],
        overlap: 0.2,
        max_shift: 5.0,
        lens: 0.0,
        drift: 0.0,
        empty: 0,
        noise: 1.0,
        seed: 4,
    }
}

/// Makes tiles, stitches them, and returns the score, the project as stitched, and the receipt's
/// results.
fn stitched(of: &phantom::Tiles, folder: &Path, options: &Options) -> (TilesScore, Project) {
    let (project, output) = made(of, folder);
    stitch(&project, &output, options, &Context::default()).unwrap();
    let location = output.display().to_string();
    let score = phantom::score_tiles(folder, &location).unwrap();
    (score, Project::open(&location, &Select::default()).unwrap())
}

fn made(of: &phantom::Tiles, folder: &Path) -> (Project, PathBuf) {
    phantom::tiles(of, folder, &Context::default()).unwrap();
    let table = folder.join("tiles.csv").display().to_string();
    (Project::open(&table, &Select::default()).unwrap(), folder.join("stitched.json"))
}

#[test]
fn shifted_tiles_are_placed_within_a_fraction_of_a_pixel() {
    let folder = tempfile::tempdir().unwrap();
    let of = phantom::Tiles { shape: [2, 500, 520], ..world() };
    let (score, project) = stitched(&of, folder.path(), &Options::default());
    assert!(score.worst_tile < 0.15, "{score:?}");
    assert!(project.tiles.iter().all(|tile| tile.linked));
    assert_eq!(project.planes(), [0, 1]);
}

#[test]
fn a_lens_and_a_drift_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let of = phantom::Tiles { lens: 3.0, drift: 6.0, ..world() };
    let (score, _) = stitched(&of, folder.path(), &Options::default());
    assert!(score.pixels.p95 < 0.3, "{score:?}");
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { model: Some(StitchModel::Translation), lens: Some(false), ..Options::default() };
    let (shifted, _) = stitched(&of, folder.path(), &options);
    assert!(shifted.pixels.p95 > 2.0 * score.pixels.p95, "{shifted:?} {score:?}");
}

#[test]
fn an_empty_tile_stays_where_the_stage_is_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let of = phantom::Tiles { empty: 1, ..world() };
    let (score, project) = stitched(&of, folder.path(), &Options::default());
    assert!(score.worst_tile < 0.15, "{score:?}");
    let apart: Vec<_> = project.tiles.iter().filter(|tile| !tile.linked).collect();
    assert_eq!(apart.len(), 1);
    // the stage is wrong by up to 5 pixels, and the plane as a whole may have moved
    let empty = project.tiles.iter().position(|tile| !tile.linked).unwrap();
    assert!(score.tiles[empty] < 12.0, "{score:?}");
}

#[test]
fn a_link_that_contradicts_the_others_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (project, _) = made(&world(), folder.path());
    let ctx = Context::default();
    let options = Options::default();
    let run = Run::new(&project, &options, &ctx).unwrap();
    let mut links: Vec<Link> =
        run.pairs.iter().map(|pair| run.link(*pair, &mut HashMap::new()).unwrap()).collect();
    links[3].offset[0] += 30.0;
    let judged = Links::judge(links, &project, 0.25);
    let wrong: Vec<usize> = (0..judged.links.len())
        .filter(|i| judged.verdicts[*i] == links::Verdict::Contradiction)
        .collect();
    assert_eq!(wrong, [3]);
}

#[test]
fn tiles_without_anything_in_common_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (mut project, output) = made(&world(), folder.path());
    // each tile is in the place of another
    let places: Vec<[f64; 2]> = project.tiles.iter().map(|tile| tile.position).collect();
    let count = places.len();
    for (i, tile) in project.tiles.iter_mut().enumerate() {
        tile.position = places[(i * 4 + 2) % count];
    }
    let error = stitch(&project, &output, &Options::default(), &Context::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("are linked to others"), "{message}");
    assert!(!output.exists() && !fields_beside(&output).exists());
}

#[test]
fn tiles_that_do_not_overlap_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut project, output) = made(&world(), folder.path());
    project.tiles.iter_mut().for_each(|tile| tile.position = tile.position.map(|v| 3.0 * v));
    let error = stitch(&project, &output, &Options::default(), &Context::default()).unwrap_err();
    assert!(error.to_string().contains("none of the 9 tiles"), "{error}");
}
