use super::*;
use crate::with_voxel;

fn round_trip(name: &str, spec: &Spec) {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, name);
    let select = match spec.format {
        Format::Npy => Select {
            spacing: Some(spec.grid.spacing),
            origin: Some(spec.grid.origin),
            ..Select::default()
        },
        _ => Select::default(),
    };
    with_voxel!(spec.dtype, T => {
        let output = Output::create(&location, spec, Existing::Refuse).unwrap();
        fill::<T>(&output, spec.grid.shape);
        let volume = Volume::open(&location, &select).unwrap();
        assert_ramp::<T>(&volume);
        let found = volume.grid();
        assert_eq!(found.shape, spec.grid.shape);
        for a in 0..3 {
            assert!((found.spacing[a] - spec.grid.spacing[a]).abs() < 1e-9, "{found:?}");
            assert!((found.origin[a] - spec.grid.origin[a]).abs() < 1e-9, "{found:?}");
        }
        assert_eq!(volume.format(), spec.format);
    });
}

#[test]
fn every_type_comes_back_from_every_format() {
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.read_as() == *dtype) {
        for (name, format) in [
            ("a.zarr", Format::Zarr3),
            ("a.zarr", Format::Zarr2),
            ("a.n5", Format::N5),
            ("a.tif", Format::Tiff),
            ("a.npy", Format::Npy),
        ] {
            round_trip(name, &Spec { dtype, ..spec([5, 11, 13], [4, 4, 5], format) });
        }
    }
}

/// Programs compute with `bool` and 16-bit floats in a wider type: values written in the wider type
/// are rounded to the nearest value of the stored type, and read back.
#[test]
fn bool_and_halves_are_written_where_the_format_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..60).map(|i| (i as f32 - 9.5) / 7.0).collect();
    for dtype in [Dtype::Bool, Dtype::F16, Dtype::BF16] {
        for (name, format) in [
            ("3.zarr", Format::Zarr3),
            ("2.zarr", Format::Zarr2),
            ("a.n5", Format::N5),
            ("a.tif", Format::Tiff),
            ("a.npy", Format::Npy),
        ] {
            let location = at(&folder, &format!("{dtype}-{name}"));
            let spec = Spec { dtype, ..spec([3, 4, 5], [2, 3, 3], format) };
            if !dtype.fits(format) {
                let message = Output::create(&location, &spec, Existing::Refuse).unwrap_err();
                assert!(message.to_string().contains(dtype.name()), "{message}");
                continue;
            }
            let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
            let nearest: Vec<f32> = match dtype {
                Dtype::Bool => values.iter().map(|v| f32::from(*v >= 0.5)).collect(),
                Dtype::F16 => values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect(),
                _ => values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect(),
            };
            for part in Box3::of_shape([3, 4, 5]).tiles(output.unit()) {
                let voxels = part.tiles([1; 3]).map(|voxel| {
                    let [z, y, x] = voxel.min.map(|v| v as usize);
                    (z * 4 + y) * 5 + x
                });
                let voxels: Vec<usize> = voxels.collect();
                if dtype == Dtype::Bool {
                    let part_values: Vec<u8> =
                        voxels.iter().map(|i| u8::from_f32(values[*i])).collect();
                    output.write(&part, &part_values).unwrap();
                } else {
                    let part_values: Vec<f32> = voxels.iter().map(|i| values[*i]).collect();
                    output.write(&part, &part_values).unwrap();
                }
            }
            let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
            let volume = Volume::open(&location, &select).unwrap();
            assert_eq!(volume.dtype(), dtype.read_as(), "{location}");
            assert_eq!(volume.describe()["stored_dtype"], dtype.name(), "{location}");
            assert_eq!(volume.read::<f32>(&volume.grid().bounds()).unwrap(), nearest, "{location}");
        }
    }
}

#[test]
fn every_codec_comes_back_from_every_container() {
    for codec in [Codec::Blosc, Codec::Raw, Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        for (name, format) in
            [("a.zarr", Format::Zarr3), ("a.zarr", Format::Zarr2), ("a.n5", Format::N5)]
        {
            round_trip(name, &Spec { codec, ..spec([9, 10, 11], [3, 5, 7], format) });
        }
        let shard = Some([6, 10, 14]);
        round_trip("a.zarr", &Spec { shard, codec, ..spec([9, 21, 11], [3, 5, 7], Format::Zarr3) });
    }
}

#[test]
fn chunks_larger_than_the_volume_come_back() {
    for (name, format) in
        [("a.zarr", Format::Zarr3), ("a.zarr", Format::Zarr2), ("a.n5", Format::N5)]
    {
        for codec in [Codec::Raw, Codec::Blosc] {
            round_trip(name, &Spec { codec, ..spec([2, 9, 4], [8, 8, 8], format) });
        }
    }
}

#[test]
fn the_codec_of_a_volume_is_known_again() {
    let folder = tempfile::tempdir().unwrap();
    for codec in [Codec::Blosc, Codec::Raw, Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        for (name, format) in
            [("a.zarr", Format::Zarr3), ("b.zarr", Format::Zarr2), ("c.n5", Format::N5)]
        {
            let location = at(&folder, name);
            let spec = Spec { codec, ..spec([4; 3], [4; 3], format) };
            Output::create(&location, &spec, Existing::Overwrite).unwrap();
            let found = Volume::open(&location, &Select::default()).unwrap().codec();
            let wanted =
                if (codec, format) == (Codec::Blosc, Format::N5) { Codec::Zstd } else { codec };
            assert_eq!(found, wanted, "{format:?}");
        }
    }
}

#[test]
fn reading_as_another_type_converts_rounds_and_clamps() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let spec = Spec { dtype: Dtype::F32, ..spec([1, 1, 4], [1, 1, 4], Format::Zarr3) };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    let bounds = spec.grid.bounds();
    output.write(&bounds, &[-1.5f32, 0.5, 300.0, f32::NAN]).unwrap();
    let volume = Volume::open(&location, &Select::default()).unwrap();
    assert_eq!(volume.read::<u8>(&bounds).unwrap(), [0, 1, 255, 0]);
    assert_eq!(volume.read::<i16>(&bounds).unwrap(), [-2, 1, 300, 0]);
    assert_eq!(volume.read::<f64>(&bounds).unwrap()[..3], [-1.5, 0.5, 300.0]);
}

#[test]
fn large_integers_pass_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let spec = Spec { dtype: Dtype::U64, ..spec([1, 1, 3], [1, 1, 3], Format::Zarr3) };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    let values = [u64::MAX, (1 << 53) + 1, 0];
    output.write(&spec.grid.bounds(), &values).unwrap();
    let volume = Volume::open(&location, &Select::default()).unwrap();
    assert_eq!(volume.read::<u64>(&spec.grid.bounds()).unwrap(), values);
}

#[test]
fn many_threads_read_one_volume() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shard) in [("a.zarr", None), ("b.zarr", Some([8; 3]))] {
        let location = at(&folder, name);
        let spec = Spec { shard, ..spec([16; 3], [4; 3], Format::Zarr3) };
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let volume = Volume::open(&location, &Select::default()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_ramp::<u16>(&volume));
            }
        });
    }
}

#[test]
fn a_field_comes_back_and_what_is_not_written_is_nan() {
    use crate::geom::FieldSource;
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "deform.zarr");
    let grid = grid([5, 6, 7]);
    let vector = |z: i64, y: i64, x: i64| [z as f32, y as f32 + 0.5, -x as f32];
    let output = FieldOutput::create(&location, &grid, [2, 3, 4], Existing::Refuse).unwrap();
    let written = Box3::new([0, 0, 0], [4, 6, 7]);
    let mut vectors = Vec::new();
    for z in 0..4 {
        for y in 0..6 {
            vectors.extend((0..7).map(|x| vector(z, y, x)));
        }
    }
    output.write(&written, &vectors).unwrap();
    output.set_attribute("reach", serde_json::json!([4.0, 6.5, 7.0])).unwrap();
    let field = FieldFile::open(&location).unwrap();
    assert_eq!((field.grid(), field.chunk()), (grid, [2, 3, 4]));
    assert_eq!(field.reach(), Some([4.0, 6.5, 7.0]));
    let part = Box3::new([1, 2, 3], [5, 4, 6]);
    let found = field.read(&part).unwrap();
    let mut at = found.iter();
    for z in 1..5 {
        for y in 2..4 {
            for x in 3..6 {
                let found = at.next().unwrap();
                if z < 4 {
                    assert_eq!(*found, vector(z, y, x));
                } else {
                    assert!(found.iter().all(|v| v.is_nan()));
                }
            }
        }
    }
    FieldOutput::create(&location, &grid, [2, 3, 4], Existing::Resume).unwrap();
    let error = FieldOutput::create(&location, &grid, [2, 3, 5], Existing::Resume).unwrap_err();
    assert!(error.to_string().contains("chunk_grid"), "{error}");
}

#[test]
fn a_small_array_whose_shape_nothing_backs_is_refused_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "local.zarr");
    write_small_array(&location, &[2, 12], &[1.0; 24], serde_json::Map::new()).unwrap();
    let path = folder.path().join("local.zarr/zarr.json");
    let mut metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    metadata["shape"] = serde_json::json!([1 << 20, 12]);
    std::fs::write(&path, metadata.to_string()).unwrap();
    let message = read_small_array(&location).unwrap_err().to_string();
    assert!(message.contains("[1048576, 12]") && message.contains("[524287, 0]"), "{message}");
}

#[test]
fn a_small_array_comes_back_with_its_attributes() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "local.zarr");
    for shape in [[2u64, 3, 4], [4, 3, 2]] {
        let data: Vec<f64> = (0..24).map(|i| f64::from(i) / 3.0).collect();
        let mut attributes = serde_json::Map::new();
        attributes.insert("kind".into(), "affines".into());
        write_small_array(&location, &shape, &data, attributes.clone()).unwrap();
        let found = read_small_array(&location).unwrap();
        assert_eq!(found, (shape.to_vec(), data, attributes));
    }
}
