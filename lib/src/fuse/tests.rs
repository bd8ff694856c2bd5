//! Tests of fusion.

use std::path::Path;

use proptest::prelude::*;

use super::oracle::{ShiftedTile, blended};
use super::*;
use crate::transform::Step;
use crate::volume::{Codec, Existing, Format, Select, Unfinished as _};

const BLENDS: [Blend; 6] =
    [Blend::Linear, Blend::Mean, Blend::Max, Blend::First, Blend::Last, Blend::Closest];

fn options(blend: Blend, width: f64) -> Options {
    let interpolation = Interpolation::Linear;
    let width = Some(width);
    Options { blend, width, interpolation, fill: 0.0, linked_only: false, channel: None }
}

/// Writes a tile as an array of 32-bit floats.
fn write(at: &Path, shape: [usize; 2], values: &[f32]) -> String {
    let location = at.display().to_string();
    let grid = Grid::plane(shape, [0.5, 0.5], [0.0; 2]);
    let spec = Spec {
        grid,
        dtype: Dtype::F32,
        chunk: [1, 64, 64],
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    for part in grid.bounds().tiles([1, 64, 64]) {
        let part_of =
            part.tiles([1; 3]).map(|p| values[p.min[1] as usize * shape[1] + p.min[2] as usize]);
        output.write(&part, &part_of.collect::<Vec<_>>()).unwrap();
    }
    location
}

fn tile(location: String, shape: [usize; 2], map: Affine) -> tiles::Tile {
    tiles::Tile {
        location,
        mask: None,
        z: 0,
        shape,
        position: [0.0; 2],
        map: vec![Step::Affine(map)],
        linked: true,
    }
}

fn project(tiles: Vec<tiles::Tile>) -> Project {
    Project { location: "tiles.json".into(), spacing: [0.5; 3], has_depth: false, tiles }
}

/// Fuses in blocks of a size, and returns the values and the first pixel of the plane.
fn fused(project: &Project, options: &Options, to: &Path, block: usize) -> (Vec<f32>, Grid) {
    let tiles = Tiles::open(project, options).unwrap();
    let grid = tiles.grid();
    let spec = Spec {
        grid,
        dtype: Dtype::F32,
        chunk: [1, 16, 16],
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let ctx = Context { block_size: Some([1, block, block]), ..Context::default() };
    let location = to.display().to_string();
    tiles.fuse(&location, &spec, &ctx).unwrap();
    let volume = crate::volume::Volume::open(&location, &Select::default()).unwrap();
    (volume.read(&grid.bounds()).unwrap(), grid)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn tiles_at_whole_pixels_are_blended_as_the_slow_fusion_does(
        places in prop::collection::vec(([-20..20_i64, -20..20], [10..40_usize, 10..40]), 1..5),
        blend in 0..6_usize, width in 1.0..12.0_f64, block in 1..3_usize, holes in any::<u64>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut slow = Vec::new();
        let mut listed = Vec::new();
        for (i, (at, shape)) in places.iter().enumerate() {
            let values: Vec<f32> = (0..shape[0] * shape[1])
                .map(|p| {
                    let hash = (p as u64 + 1).wrapping_mul(holes | 1).rotate_left(7 + i as u32);
                    if hash.is_multiple_of(11) { f32::NAN } else { (hash % 200) as f32 + 1.0 }
                })
                .collect();
            let location = write(&folder.path().join(format!("{i}.zarr")), *shape, &values);
            let by = [0.0, -0.5 * at[0] as f64, -0.5 * at[1] as f64];
            listed.push(tile(location, *shape, Affine::translation(by)));
            slow.push(ShiftedTile { at: *at, shape: *shape, values });
        }
        let (blend, project) = (BLENDS[blend], project(listed));
        let to = folder.path().join("out.zarr");
        let (found, grid) = fused(&project, &options(blend, width), &to, 16 * block);
        for (i, found) in found.iter().enumerate() {
            let [_, _, columns] = grid.shape;
            let pixel = [0, 1].map(|a| {
                (grid.origin[a + 1] / 0.5).round() as i64 + [i / columns, i % columns][a] as i64
            });
            let wanted = blended(&slow, pixel, blend, width).unwrap_or(0.0);
            prop_assert!(
                (f64::from(*found) - wanted).abs() < 1e-3 * wanted.abs().max(1.0),
                "{blend:?} at {pixel:?}: {found} for {wanted}"
            );
        }
    }

    #[test]
    fn equal_tiles_stay_equal_under_any_map_and_blend(
        maps in prop::collection::vec([-0.2..0.2_f64, -0.2..0.2, -0.2..0.2, -0.2..0.2, -9.0..9.0, -9.0..9.0], 1..5),
        blend in 0..6_usize, field in -0.7..0.7_f64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let shape = [40, 50];
        let location = write(&folder.path().join("tile.zarr"), shape, &[77.0; 2000]);
        let field_at = folder.path().join("field.zarr").display().to_string();
        let nodes = Grid::new([1, 8, 8], [1.0, 10.0, 10.0], [0.0, -20.0, -20.0]);
        let parts = crate::volume::FieldParts { components: 2, quality: Vec::new() };
        let out = crate::volume::FieldOutput::create_parts(&field_at, &nodes, parts, [1, 8, 8], &Existing::Refuse);
        let vectors: Vec<f32> = (0..128).map(|i| (field * f64::from(i % 5)) as f32).collect();
        let out = out.unwrap();
        out.write_parts(&nodes.bounds(), &vectors).unwrap();
        out.set_attribute("reach", json!([0.0, 4.0, 4.0])).unwrap();
        out.set_missing_blocks(None, true).unwrap();
        let tiles = maps.iter().map(|[a, b, c, d, y, x]| {
            let linear = [[1.0, 0.0, 0.0], [0.0, 1.0 + a, *b], [0.0, *c, 1.0 + d]];
            let mut tile = tile(location.clone(), shape, Affine::from_parts(linear, [0.0, *y, *x]));
            tile.map.push(Step::Field(field_at.clone()));
            tile
        });
        let project = project(tiles.collect());
        let to = folder.path().join("out.zarr");
        let (found, _) = fused(&project, &options(BLENDS[blend], 6.0), &to, 32);
        let shown = found.iter().filter(|v| **v != 0.0).count();
        prop_assert!(shown > 900, "{shown}");
        prop_assert!(found.iter().all(|v| *v == 0.0 || (v - 77.0).abs() < 1e-3));
    }
}

#[test]
fn a_project_whose_tiles_show_nothing_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let location = write(&folder.path().join("tile.zarr"), [20, 20], &[f32::NAN; 400]);
    let project = project(vec![tile(location, [20, 20], Affine::IDENTITY)]);
    let of = options(Blend::Linear, 5.0);
    let tiles = Tiles::open(&project, &of).unwrap();
    let spec = Spec {
        grid: tiles.grid(),
        dtype: Dtype::U8,
        chunk: [1, 16, 16],
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let to = folder.path().join("out.zarr").display().to_string();
    let found = tiles.fuse(&to, &spec, &Context::default());
    assert!(matches!(found, Err(Error::Nothing { .. })), "{found:?}");
}
