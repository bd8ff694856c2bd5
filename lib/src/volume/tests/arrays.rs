//! Arrays of any rank, and displacement fields with further channels that hold the quality of each
//! vector.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::geom::FieldSource;

const NAMES: [AxisName; 6] =
    [AxisName::T, AxisName::C, AxisName::Z, AxisName::Y, AxisName::X, AxisName::Component];

/// The value at a position of an array: the base-5 number whose digits are the indices modulo 5,
/// taken modulo 251.
fn digits(at: &[i64]) -> i64 {
    at.iter().fold(0, |sum, v| sum * 5 + v.rem_euclid(5)) % 251
}

/// The positions of a box in C order.
fn positions(part: &Bounds) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for (min, max) in part.min.iter().zip(&part.max) {
        let mut longer = Vec::new();
        for at in &all {
            longer.extend((*min..*max).map(|v| [&at[..], &[v]].concat()));
        }
        all = longer;
    }
    all
}

/// An axis: its size, its chunk size, its first index, and the start and length of the box that is
/// read.
type Along = (usize, usize, i64, i64, i64);

fn array_spec(axes: &[Along], format: Format, dtype: Dtype) -> ArraySpec {
    let names = &NAMES[NAMES.len() - axes.len()..];
    let axis = |(name, along): (&AxisName, &Along)| Axis {
        name: name.clone(),
        size: along.0,
        first: along.2,
    };
    ArraySpec {
        axes: names.iter().zip(axes).map(axis).collect(),
        dtype,
        chunk: axes.iter().map(|along| along.1).collect(),
        shard: None,
        codec: Codec::Gzip,
        format,
        fill: 0.0,
        spacing: Some([2.0, 0.5, 0.25]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_array_of_any_rank_comes_back_from_every_container(
        axes in prop::collection::vec((1usize..5, 1usize..4, -3i64..3, -4i64..4, 0i64..5), 1..=6),
        format in 0usize..3,
        dtype in 0usize..Dtype::ALL.len(),
    ) {
        let format = [Format::Zarr3, Format::Zarr2, Format::N5][format];
        let dtype = Dtype::ALL[dtype];
        prop_assume!(dtype.fits(format));
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, if format == Format::N5 { "a.n5/a" } else { "a.zarr" });
        let spec = array_spec(&axes, format, dtype);
        let output = ArrayOutput::create(&location, &spec, &Existing::Refuse).unwrap();
        let min: Vec<i64> = axes.iter().map(|along| along.2).collect();
        let max: Vec<i64> = axes.iter().map(|along| along.2 + along.0 as i64).collect();
        let whole = Bounds { min, max };
        let stored = |at: &Vec<i64>| -> f64 {
            crate::with_element!(dtype, T => T::from_f64(digits(at) as f64 / 2.0).to_f64())
        };
        crate::with_element!(dtype, T => {
            let values: Vec<T> =
                positions(&whole).iter().map(|at| T::from_f64(digits(at) as f64 / 2.0)).collect();
            output.write(&whole, &values).unwrap();
        });
        let array = Array::open(&location).unwrap();
        prop_assert_eq!(array.bounds(), whole.clone());
        prop_assert_eq!((array.dtype(), array.spacing()), (dtype, spec.spacing));
        prop_assert_eq!(array.axes(), spec.axes.clone());
        let part = Bounds {
            min: axes.iter().map(|along| along.3).collect(),
            max: axes.iter().map(|along| along.3 + along.4).collect(),
        };
        let inside = |at: &[i64]| (0..at.len()).all(|a| whole.min[a] <= at[a] && at[a] < whole.max[a]);
        let wanted: Vec<f64> =
            positions(&part).iter().map(|at| if inside(at) { stored(at) } else { 0.0 }).collect();
        prop_assert_eq!(array.read::<f64>(&part).unwrap(), wanted);
        prop_assert!(array.read::<f64>(&Bounds::new(&[0; 7], &[1; 7])).is_err());
    }
}

#[test]
fn an_array_that_no_format_has_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let good = array_spec(&[(4, 2, 0, 0, 0), (4, 2, 0, 0, 0)], Format::Zarr3, Dtype::U8);
    let twice = vec![Axis::new(AxisName::X, 4), Axis::new(AxisName::X, 4)];
    for (spec, word) in [
        (ArraySpec { chunk: vec![2], ..good.clone() }, "chunks of [2]"),
        (ArraySpec { chunk: vec![2, 0], ..good.clone() }, "chunks of [2, 0]"),
        (ArraySpec { axes: Vec::new(), chunk: Vec::new(), ..good.clone() }, "1 to 6 axes"),
        (ArraySpec { axes: twice, ..good.clone() }, "the axes x, x"),
        (ArraySpec { fill: 300.0, ..good.clone() }, "the fill value 300"),
        (ArraySpec { shard: Some(vec![3, 2]), ..good.clone() }, "shards of [3, 2]"),
        (ArraySpec { spacing: Some([0.0; 3]), ..good.clone() }, "the spacing"),
        (ArraySpec { format: Format::Npy, ..good.clone() }, "would be a NumPy file"),
    ] {
        let message =
            ArrayOutput::create(&location, &spec, &Existing::Refuse).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
        assert!(!std::path::Path::new(&location).exists(), "{word}");
    }
    let output = ArrayOutput::create(&location, &good, &Existing::Refuse).unwrap();
    let half = Bounds::new(&[0, 0], &[2, 1]);
    let message = output.write(&half, &[0u8; 2]).unwrap_err().to_string();
    assert!(message.contains("whole units are [2, 2]"), "{message}");
    assert!(ArrayOutput::create(&location, &good, &Existing::Refuse).is_err());
    ArrayOutput::create(&location, &good, &Existing::Resume).unwrap();
    let other = ArraySpec { dtype: Dtype::U16, ..good };
    assert!(ArrayOutput::create(&location, &other, &Existing::Resume).is_err());
}

#[test]
fn a_field_of_planes_has_two_components_and_quality_channels() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "flow.zarr");
    let grid = Grid::new([3, 4, 5], [1.0, 8.0, 8.0], [0.0, 4.0, 4.0]);
    let quality = ["peak", "ratio", "sharpness", "valid"].map(str::to_owned).to_vec();
    let parts = FieldParts { components: 2, quality };
    let chunk = [1, 3, 4];
    let output =
        FieldOutput::create_parts(&location, &grid, parts.clone(), chunk, &Existing::Refuse)
            .unwrap();
    let value = |[z, y, x]: [i64; 3], part: i64| (1000 * part + 100 * z + 10 * y + x) as f32;
    // the last plane is not written
    for tile in Box3::new([0; 3], [2, 4, 5]).tiles(output.unit()) {
        let at = tile.tiles([1; 3]).flat_map(|v| (0..6).map(move |part| (v.min, part)));
        let elements: Vec<f32> = at.map(|(at, part)| value(at, part)).collect();
        output.write_parts(&tile, &elements).unwrap();
    }
    assert!(FieldFile::open(&location).unwrap_err().to_string().contains("is unfinished"));
    output.set_missing_blocks(None, true).unwrap();
    let field = FieldFile::open(&location).unwrap();
    assert_eq!((field.parts(), field.chunk(), field.grid()), (&parts, chunk, grid));
    let part = Box3::new([1, -1, 2], [3, 3, 5]);
    let vectors = field.read(&part).unwrap();
    let channel = field.read_quality(2, &part).unwrap();
    for (i, voxel) in part.tiles([1; 3]).enumerate() {
        let at = voxel.min;
        let wanted = match at {
            [_, -1, _] => ([0.0; 3], 0.0),
            [2, ..] => ([f32::NAN; 3], f32::NAN),
            at => ([0.0, value(at, 0), value(at, 1)], value(at, 4)),
        };
        assert_eq!(format!("{:?}", (vectors[i], channel[i])), format!("{wanted:?}"), "{at:?}");
    }
    assert!(field.read_quality(4, &part).is_err());
    // the same field can be opened as an array
    let array = Array::open(&location).unwrap();
    assert_eq!(array.axes()[3], Axis::new(AxisName::Component, 6));
    let one = Bounds::new(&[1, 2, 3, 0], &[2, 3, 4, 6]);
    assert_eq!(array.read::<f32>(&one).unwrap(), [0, 1, 2, 3, 4, 5].map(|p| value([1, 2, 3], p)));
    assert_eq!(array.attribute("components"), Some(&json!(["y", "x"])));
}

#[test]
fn a_chunk_of_several_channels_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("3.zarr", Format::Zarr3), ("2.zarr", Format::Zarr2)] {
        let location = at(&folder, name);
        let spec = spec([5, 6, 7], [2, 4, 4], format);
        let output =
            Output::create_channels_together(&location, &spec, 5, 3, Existing::Refuse).unwrap();
        let value = |c: usize, [z, y, x]: [i64; 3]| (c as i64 * 1000 + z * 100 + y * 10 + x) as u16;
        let whole = Box3::of_shape([5, 6, 7]);
        for channels in [0..3, 3..5] {
            let voxels: Vec<u16> = channels
                .clone()
                .flat_map(|c| whole.tiles([1; 3]).map(move |voxel| value(c, voxel.min)))
                .collect();
            output.write_channels(channels, &whole, &voxels).unwrap();
        }
        assert!(output.write_channel(0, &whole, &ramp::<u16>(&whole)).is_err());
        assert_eq!(Unfinished::stored(&output, &whole).unwrap(), 2 * 3 * 2 * 2);
        let part = Box3::new([1, 2, 3], [4, 6, 7]);
        for channel in 0..5 {
            let select = Select { channel: Some(channel), ..Select::default() };
            let volume = Volume::open(&location, &select).unwrap();
            let wanted: Vec<u16> =
                part.tiles([1; 3]).map(|voxel| value(channel, voxel.min)).collect();
            assert_eq!(volume.read::<u16>(&part).unwrap(), wanted, "{channel}");
        }
        let array = std::fs::read_to_string(
            folder.path().join(name).join("0").join(if format == Format::Zarr3 {
                "zarr.json"
            } else {
                ".zarray"
            }),
        );
        let array: serde_json::Value = serde_json::from_str(&array.unwrap()).unwrap();
        let chunk =
            array.get("chunks").unwrap_or(&array["chunk_grid"]["configuration"]["chunk_shape"]);
        assert_eq!(*chunk, json!([3, 2, 4, 4]));
    }
}
