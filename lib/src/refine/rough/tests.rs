//! Tests that sections are placed whatever their rotation, and piece by piece if they are broken.

use tempfile::TempDir;

use super::links::{Link, Piece, links};
use super::tree::Tree;
use super::{RoughOptions, rough};
use crate::blocks::{self, Context};
use crate::geom::{Affine, Grid, Point};
use crate::metric::{Image, hash, unit};
use crate::phantom::{Sections, score_sections, sections};
use crate::refine::pyramid::Pyramid;
use crate::refine::{Error, InputVolume};
use crate::transform::read_chain;
use crate::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec};

/// A texture without repetition: bilinear noise at three scales.
fn texture([y, x]: [f64; 2], seed: u64) -> f64 {
    let mut sum = 0.0;
    for (octave, size) in [6.0, 13.0, 29.0].into_iter().enumerate() {
        let (y, x) = (y / size + 500.0, x / size + 500.0);
        let (row, column) = (y.floor(), x.floor());
        let (fy, fx) = (y - row, x - column);
        let corner = |dy: f64, dx: f64| {
            let at = ((row + dy) as u64) << 32 | (column + dx) as u64;
            unit(hash(seed + octave as u64, at), 0)
        };
        sum += (1.0 - fy) * ((1.0 - fx) * corner(0.0, 0.0) + fx * corner(0.0, 1.0))
            + fy * ((1.0 - fx) * corner(1.0, 0.0) + fx * corner(1.0, 1.0));
    }
    100.0 * sum
}

const SIZE: usize = 192;

/// The image that shows at p the place `map(p)` of the tissue.
fn image(map: impl Fn([f64; 2]) -> [f64; 2], seed: u64) -> Pyramid {
    let grid = Grid::new([1, SIZE, SIZE], [1.0; 3], [0.0; 3]);
    let at = |i: usize| [(i / SIZE) as f64, (i % SIZE) as f64];
    let voxels = (0..SIZE * SIZE).map(|i| texture(map(at(i)), seed) as f32).collect();
    Pyramid::new(Image { grid, voxels }, 1.0)
}

/// A rotation about the middle of the image, followed by a shift.
fn turned(degrees: f64, shift: [f64; 2]) -> Affine {
    let middle: Point = [0.0, 95.5, 95.5];
    let (sin, cos) = degrees.to_radians().sin_cos();
    let linear = [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]];
    Affine::translation(middle.map(|m| -m))
        .then(&Affine::from_parts(linear, [0.0, middle[1] + shift[0], middle[2] + shift[1]]))
}

/// The link of a section to the one before it.
fn link([section, other]: [&Pyramid; 2], options: &RoughOptions) -> Link {
    links(1, section, &[(0, other)], options, 0).pop().unwrap()
}

fn in_plane(map: &Affine, [y, x]: [f64; 2]) -> [f64; 2] {
    let [_, y, x] = map.apply([0.0, y, x]);
    [y, x]
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

#[test]
fn a_section_is_found_at_any_rotation_and_mirrored_on_request() {
    let plain = image(|p| p, 1);
    for (degrees, mirrored) in [(137.0, false), (-61.0, true)] {
        let map = turned(degrees, [9.0, -14.0]);
        let place = |p: [f64; 2]| {
            let [y, x] = in_plane(&map, p);
            if mirrored { [y, 191.0 - x] } else { [y, x] }
        };
        let other = image(place, 1);
        let options = RoughOptions { allow_reflection: mirrored, ..RoughOptions::default() };
        let found = link([&other, &plain], &options);
        assert!(found.is_believed(), "{:?}", found.refusal);
        assert_eq!(found.pieces.len(), 1);
        for p in [[60.0, 70.0], [120.0, 80.0], [96.0, 130.0]] {
            let error = distance(found.forward(p), place(p));
            assert!(error < 0.5, "{degrees}: {error}");
            assert!(distance(found.backward(found.forward(p)), p) < 1e-6);
        }
    }
}

#[test]
fn unrelated_sections_are_not_linked() {
    let found = link([&image(|p| p, 1), &image(|p| p, 77)], &RoughOptions::default());
    assert!(!found.is_believed() && found.refusal.is_some(), "{found:?}");
}

#[test]
fn the_pieces_of_a_broken_section_have_maps_of_their_own() {
    let plain = image(|p| p, 5);
    let [one, two] = [turned(24.0, [4.0, 6.0]), turned(24.0 + 31.0, [-8.0, 26.0])];
    // the right part of the section, 70 of 192 columns, has turned and moved away
    let place = |p: [f64; 2]| in_plane(if p[1] < 122.0 { &one } else { &two }, p);
    let broken = image(place, 5);
    let options = RoughOptions::default();
    let there = link([&broken, &plain], &options);
    let back = link([&plain, &broken], &options);
    for (found, way) in [(&there, "from the broken section"), (&back, "to the broken section")] {
        assert!(found.is_believed(), "{way}: {:?}", found.refusal);
        assert_eq!(found.pieces.len(), 2, "{way}");
    }
    for p in [[50.0, 60.0], [120.0, 90.0], [90.0, 150.0], [60.0, 165.0]] {
        let errors = [distance(there.forward(p), place(p)), distance(back.backward(p), place(p))];
        assert!(errors.iter().all(|error| *error < 1.5), "{p:?}: {errors:?}");
    }
}

fn shifted(section: usize, other: usize, explained: f64, by: f64) -> Link {
    let pieces = vec![Piece([[1.0, 0.0, by], [0.0, 1.0, 0.0]])];
    Link { section, other, pieces, explained, ..Link::default() }
}

#[test]
fn sections_are_placed_along_the_links_that_explain_most() {
    // the link from 2 to 1 is wrong and explains little; 4 has none; 5 is linked to 3 only
    let mut links = vec![
        shifted(1, 0, 0.95, 1.0),
        shifted(2, 1, 0.4, 99.0),
        shifted(2, 0, 0.9, 3.0),
        shifted(3, 2, 1.0, 4.0),
        shifted(3, 1, 0.85, 6.0),
        shifted(4, 3, 0.0, 0.0),
        shifted(5, 3, 0.7, 5.0),
    ];
    links[5].refusal = Some("chance".to_owned());
    let tree = Tree::of(&links, 6, None);
    assert_eq!((tree.root, tree.not_placed()), (2, vec![4]));
    let grid = Grid::new([6, 2, 2], [1.0; 3], [0.0; 3]);
    let all = tree.displacements(&links, &grid);
    let along_y: Vec<f32> = (0..6).map(|section| all[section * 8]).collect();
    // 4 follows the first of its neighbours
    assert_eq!(along_y, [3.0, 2.0, 0.0, -4.0, -4.0, -9.0]);
    let tree = Tree::of(&links, 6, Some(0));
    assert_eq!(tree.displacements(&links, &grid)[8..9], [-1.0]);
}

/// Section 2 is broken: no other section is placed through it, although the maps of its pieces explain
/// as much.
#[test]
fn intact_sections_are_not_placed_through_a_broken_one() {
    let mut links = vec![
        shifted(1, 0, 0.9, 1.0),
        shifted(2, 1, 0.99, 7.0),
        shifted(2, 0, 0.98, 8.0),
        shifted(3, 2, 0.99, 9.0),
        shifted(3, 1, 0.85, 2.0),
        shifted(4, 3, 0.9, 1.0),
        shifted(4, 2, 0.97, 6.0),
    ];
    for i in [1, 2, 3, 6] {
        let piece = links[i].pieces[0];
        links[i].pieces.push(piece);
    }
    let tree = Tree::of(&links, 5, Some(4));
    let mut used: Vec<[usize; 2]> = tree.links(&links).map(|l| [l.section, l.other]).collect();
    used.sort_unstable();
    assert_eq!(used, [[1, 0], [2, 1], [3, 1], [4, 3]]);
    assert_eq!(tree.in_pieces(&links), [2]);
}

/// Runs `rough` on a phantom of sections; returns the folder and the result.
fn of_phantom(of: &Sections, options: &RoughOptions) -> (TempDir, Result<(), Error>) {
    let folder = tempfile::tempdir().unwrap();
    let ctx = Context::default();
    sections(of, folder.path(), &ctx).unwrap();
    let stack = folder.path().join("sections.zarr").display().to_string();
    let output = folder.path().join("rough.zarr").display().to_string();
    let input = InputVolume { location: &stack, select: Select::default(), mask: None };
    let result = rough(&input, &output, options, &ctx);
    (folder, result)
}

const PHANTOM: Sections = Sections {
    shape: [4, 160, 160],
    spacing: [0.05, 0.01, 0.01],
    max_displacement: 3.0,
    wavelength: 160.0,
    max_shift: 20.0,
    max_rotation: 180.0,
    noise: 1.0,
    defects: 0.0,
    seed: 8,
};

#[test]
fn a_stack_of_turned_sections_is_placed() {
    let options = RoughOptions { distance: 1, ..RoughOptions::default() };
    let (folder, result) = of_phantom(&PHANTOM, &options);
    result.unwrap();
    let chain = folder.path().join("rough.json").display().to_string();
    let score = score_sections(folder.path(), &[chain]).unwrap();
    assert!(score.worst_section < 4.0, "{}", score.worst_section);
}

#[test]
fn a_stack_that_falls_apart_is_refused_and_writes_nothing() {
    // noise buries the tissue
    let buried = Sections { noise: 20.0, shape: [3, 96, 96], ..PHANTOM };
    let options = RoughOptions { distance: 1, ..RoughOptions::default() };
    let (folder, result) = of_phantom(&buried, &options);
    let Err(Error::Blocks(blocks::Error::Rejected(message))) = result else { panic!("{result:?}") };
    assert!(message.starts_with("only "), "{message}");
    assert!(!folder.path().join("rough.zarr").exists());
    assert!(!folder.path().join("rough.json").exists());
}

/// Tissue that fills a square frame, which is turned on an empty background: the outlines fit to each
/// other at four wrong rotations.
#[test]
fn outlines_on_an_empty_background_do_not_decide() {
    const SIDE: f64 = 160.0;
    let maps = [turned(12.0, [3.0, -2.0]), turned(65.0, [-4.0, 5.0]), turned(-88.0, [1.0, 2.0])];
    let value = |i: usize| {
        let [z, y, x] = [i / (SIZE * SIZE), i / SIZE % SIZE, i % SIZE];
        let [y, x] = in_plane(&maps[z], [y as f64, x as f64]);
        let is_inside = [y, x].iter().all(|v| (v - 95.5).abs() < SIDE / 2.0);
        if is_inside { 20.0 + 0.6 * texture([y, x], 3) } else { 0.0 }
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let grid = Grid::new([3, SIZE, SIZE], [1.0; 3], [0.0; 3]);
    let spec = Spec {
        grid,
        dtype: Dtype::U8,
        chunk: [1, SIZE, SIZE],
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let output = Output::create(&at("stack.zarr"), &spec, Existing::Refuse).unwrap();
    let voxels: Vec<u8> = (0..3 * SIZE * SIZE).map(|i| value(i) as u8).collect();
    output.write(&grid.bounds(), &voxels).unwrap();
    let (stack, options) = (at("stack.zarr"), RoughOptions::default());
    let input = InputVolume { location: &stack, select: Select::default(), mask: None };
    rough(&input, &at("rough.zarr"), &options, &Context::default()).unwrap();
    let chain = read_chain(&[at("rough.json")]).unwrap();
    for p in [[60.0, 70.0], [120.0, 110.0]] {
        let shown: Vec<[f64; 2]> = (0..3)
            .map(|z| {
                let at = [f64::from(z), p[0], p[1]];
                let (local, _) = chain.localise([at, at]).unwrap();
                let [_, y, x] = local.apply(at);
                in_plane(&maps[z as usize], [y, x])
            })
            .collect();
        for place in &shown {
            assert!(distance(*place, shown[1]) < 2.0, "{p:?}: {shown:?}");
        }
    }
}

#[test]
fn what_is_no_stack_is_refused() {
    let with_flag = RoughOptions { reference: Some(4), ..RoughOptions::default() };
    let (_, result) = of_phantom(&PHANTOM, &with_flag);
    assert!(result.unwrap_err().to_string().contains("--reference 4 is out of range"));
}
