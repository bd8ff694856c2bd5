//! Comparisons with SOFIMA on its reference cases (`reference/sofima`): flow with and without masks,
//! targets and patches of two sizes, in planes and in volumes; cleaning and reconciling.

use std::collections::BTreeMap;

use super::*;
use crate::golden::npz::{Array, read_npz};
use crate::golden::shared;

fn reference(name: &str) -> BTreeMap<String, Array> {
    read_npz(&shared("reference/sofima").join(format!("{name}.npz")))
}

struct Image {
    shape: [usize; 3],
    voxels: Vec<f32>,
    mask: Vec<bool>,
}

impl Image {
    fn new(voxels: &Array, mask: Option<&Array>) -> Self {
        let mut shape = [1; 3];
        shape[3 - voxels.shape.len()..].copy_from_slice(&voxels.shape);
        Self {
            shape,
            voxels: voxels.values.iter().map(|v| *v as f32).collect(),
            mask: mask.map(|m| m.values.iter().map(|v| *v > 0.0).collect()).unwrap_or_default(),
        }
    }

    fn view(&self) -> MaskedImage<'_> {
        MaskedImage { shape: self.shape, voxels: &self.voxels, mask: &self.mask }
    }
}

/// A field of SOFIMA: channels x, y[, z][, sharpness, ratio], then the axes. SOFIMA's quality is
/// converted as [`sofima_flow`] converts it.
fn field(array: &Array, components: usize) -> FlowField {
    let channels = array.shape[0];
    let mut shape = [1; 3];
    let axes = &array.shape[1..];
    shape[3 - axes.len()..].copy_from_slice(axes);
    let count: usize = axes.iter().product();
    let at = |c: usize, i: usize| array.values[c * count + i] as f32;
    let vectors = (0..count)
        .map(|i| {
            let mut vector = [0.0; 3];
            (0..components).for_each(|c| vector[2 - c] = at(c, i));
            if vector.iter().any(|v| v.is_nan()) { [f32::NAN; 3] } else { vector }
        })
        .collect();
    let quality = if channels == components + 2 {
        (0..count)
            .map(|i| {
                let ratio = at(components + 1, i).abs();
                Quality {
                    correlation: 1.0,
                    evidence: 0.0,
                    sharpness: at(components, i).abs(),
                    ratio: if ratio > 0.0 { 1.0 / ratio } else { ratio },
                }
            })
            .collect()
    } else {
        Vec::new()
    };
    FlowField { shape, planar: components == 2, vectors, quality }
}

/// Fails unless the same vectors are known and at least `least` of them are equal, with the same
/// quality within a thousandth where they are.
fn compare(found: &FlowField, wanted: &FlowField, least: f64) {
    compare_some(found, wanted, least, |_| false);
}

/// Like [`compare`], but patches that `is_flat` need not be known here: the mean of a constant patch
/// has a rounding error in SOFIMA, unless its size is a power of two, and the correlation of this
/// error has maxima.
fn compare_some(
    found: &FlowField,
    wanted: &FlowField,
    least: f64,
    is_flat: impl Fn(usize) -> bool,
) {
    assert_eq!(found.shape, wanted.shape);
    let (mut equal, mut known) = (0, 0);
    for i in 0..wanted.vectors.len() {
        let (a, b) = (found.vectors[i], wanted.vectors[i]);
        if b[2].is_nan() || (a[2].is_nan() && is_flat(i)) {
            assert!(a[2].is_nan(), "vector {i}: {a:?}, wanted {b:?}");
            continue;
        }
        assert!(!a[2].is_nan(), "vector {i}: {a:?}, wanted {b:?}");
        known += 1;
        if (0..3).any(|c| (a[c] - b[c]).abs() > 0.01) {
            continue;
        }
        let (p, q) = (found.quality[i], wanted.quality[i]);
        let near = |a: f32, b: f32| (a - b).abs() <= 2e-3 * b.abs().max(0.1);
        // near a minimum of 0, sharpness is a quotient of rounding errors
        if near(p.ratio, q.ratio) && (q.sharpness > 100.0 || near(p.sharpness, q.sharpness)) {
            equal += 1;
        }
    }
    assert!(known > 0);
    assert!(f64::from(equal) >= least * f64::from(known), "{equal} of {known} are equal");
}

/// Whether most of patch `i` of an image lies in the block of constant value that both images have.
fn is_flat(image: &Image, patches: [usize; 3], options: &SofimaOptions, i: usize) -> bool {
    let [_, size, _] = options.size;
    let [y, x] = [i / patches[2] * options.stride[1], i % patches[2] * options.stride[2]];
    let pixels = (0..size).flat_map(|dy| (0..size).map(move |dx| (y + dy, x + dx)));
    let flat = pixels.filter(|(y, x)| image.voxels[y * image.shape[2] + x] == 117.0).count();
    4 * flat > 3 * size * size
}

const PLANES: SofimaOptions = SofimaOptions {
    size: [1, 64, 64],
    moving_size: [1, 64, 64],
    stride: [1, 16, 16],
    max_masked: 0.75,
    masks_only_select: false,
};

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn flow_of_planes_is_that_of_sofima() {
    let images = reference("img2d");
    let (moving, fixed) = (Image::new(&images["pre"], None), Image::new(&images["post"], None));
    let found = sofima_flow(&fixed.view(), &moving.view(), None, &PLANES);
    compare(&found, &field(&reference("flow2d")["b1"], 2), 0.995);

    let masks = reference("mask2d");
    let (pre, post) = (&masks["pre_mask"], &masks["post_mask"]);
    let (moving, fixed) =
        (Image::new(&images["pre"], Some(pre)), Image::new(&images["post"], Some(post)));
    let wanted = reference("flow2d_masked");
    let found = sofima_flow(&fixed.view(), &moving.view(), None, &PLANES);
    compare(&found, &field(&wanted["b1"], 2), 0.995);
    let select = SofimaOptions { max_masked: 0.5, masks_only_select: true, ..PLANES };
    let found = sofima_flow(&fixed.view(), &moving.view(), None, &select);
    compare(&found, &field(&wanted["selonly"], 2), 0.995);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn targets_and_patches_of_two_sizes_are_those_of_sofima() {
    let images = reference("img2d");
    let (moving, fixed) = (Image::new(&images["pre"], None), Image::new(&images["post"], None));
    let wanted = reference("flow2d_targeted");
    let coarse = SofimaOptions {
        size: [1, 96, 96],
        moving_size: [1, 96, 96],
        stride: [1, 32, 32],
        ..PLANES
    };
    let first = sofima_flow(&fixed.view(), &moving.view(), None, &coarse);
    let flat = |i| is_flat(&fixed, first.shape, &coarse, i);
    compare_some(&first, &field(&wanted["coarse"], 2), 0.995, flat);
    let fine = SofimaOptions { size: [1, 48, 48], moving_size: [1, 48, 48], ..PLANES };
    let target = Target { field: &first, stride: [1, 32, 32] };
    let found = sofima_flow(&fixed.view(), &moving.view(), Some(&target), &fine);
    let flat = |i| is_flat(&fixed, found.shape, &fine, i);
    compare_some(&found, &field(&wanted["fine"], 2), 0.995, flat);

    let wider = SofimaOptions { moving_size: [1, 96, 96], ..PLANES };
    let found = sofima_flow(&fixed.view(), &moving.view(), None, &wider);
    compare(&found, &field(&reference("flow2d_postpatch")["flow"], 2), 0.995);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn flow_of_volumes_is_that_of_sofima() {
    let images = reference("img3d");
    let options = SofimaOptions {
        size: [20, 32, 32],
        moving_size: [20, 32, 32],
        stride: [8, 12, 12],
        ..PLANES
    };
    let (moving, fixed) = (Image::new(&images["pre"], None), Image::new(&images["post"], None));
    let found = sofima_flow(&fixed.view(), &moving.view(), None, &options);
    compare(&found, &field(&reference("flow3d")["flow"], 3), 0.995);
    let wanted = reference("flow3d_masked");
    let moving = Image::new(&images["pre"], Some(&wanted["pre_mask"]));
    let found = sofima_flow(&fixed.view(), &moving.view(), None, &options);
    compare(&found, &field(&wanted["flow"], 3), 0.98);
}

fn same(found: &FlowField, wanted: &Array) {
    let wanted = field(wanted, if found.planar { 2 } else { 3 });
    for (i, (a, b)) in found.vectors.iter().zip(&wanted.vectors).enumerate() {
        let equal = a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
        assert!(equal, "vector {i}: {a:?}, wanted {b:?}");
    }
}

fn limits(ratio: f64, sharpness: f64, magnitude: f64, deviation: f64) -> Limits {
    let positive = |value: f64| if value > 0.0 { value } else { f64::INFINITY };
    Limits {
        max_ratio: 1.0 / ratio,
        min_sharpness: sharpness,
        max_magnitude: positive(magnitude),
        max_deviation: positive(deviation),
        neighbours: Neighbours::Sofima,
        ..Limits::default()
    }
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn cleaned_fields_are_those_of_sofima() {
    let cases = [
        ("out_a", limits(1.6, 1.6, 80.0, 20.0)),
        ("out_b", limits(1.4, 1.4, 0.0, 5.0)),
        ("out_c", limits(2.5, 3.0, 6.0, 2.0)),
    ];
    for (file, components) in [("clean2d", 2), ("clean3d", 3)] {
        let data = reference(file);
        for (name, limits) in cases.iter().filter(|(name, _)| data.contains_key(*name)) {
            let mut found = field(&data["input"], components);
            found.clean(limits);
            same(&found, &data[*name]);
        }
    }
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn reconciled_fields_are_those_of_sofima() {
    let data = reference("reconcile2d");
    let off = f64::INFINITY;
    for (name, merged, max_gradient, max_deviation, min_patches) in [
        ("out_a", true, 6.0, 4.0, 12),
        ("out_b", false, off, off, 10),
        ("out_c", true, off, 20.0, 40),
    ] {
        let mut found = field(&data["first"], 2);
        if merged {
            found.fill_from(&field(&data["second"], 2));
        }
        let neighbours = Neighbours::Sofima;
        let limits = Limits { max_deviation, min_patches, neighbours, ..Limits::default() };
        found.reconcile(&limits, [max_gradient; 3]);
        same(&found, &data[name]);
    }
}
