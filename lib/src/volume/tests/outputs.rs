use std::fs;

use super::*;

const CONTAINERS: [(&str, Format); 3] =
    [("a.zarr", Format::Zarr3), ("a.zarr", Format::Zarr2), ("a.n5", Format::N5)];

fn create(location: &str, spec: &Spec, existing: Existing) -> Result<Output, Error> {
    Output::create(location, spec, existing)
}

#[test]
fn an_output_that_is_there_is_refused_resumed_or_replaced() {
    for (name, format) in [
        ("a.zarr", Format::Zarr3),
        ("a.zarr", Format::Zarr2),
        ("a.n5", Format::N5),
        ("a.tif", Format::Tiff),
        ("a.npy", Format::Npy),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let spec = spec([6, 7, 8], [3, 4, 8], format);
        let output = create(&location, &spec, Existing::Resume).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let refused = create(&location, &spec, Existing::Refuse).unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "{refused}");
        let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
        create(&location, &spec, Existing::Resume).unwrap();
        assert_ramp::<u16>(&Volume::open(&location, &select).unwrap());
        let other = Spec { grid: grid([6, 7, 9]), ..spec.clone() };
        let error = create(&location, &other, Existing::Resume).unwrap_err().to_string();
        assert!(error.contains("cannot be resumed"), "{error}");
        assert_ramp::<u16>(&Volume::open(&location, &select).unwrap());
        let output = create(&location, &other, Existing::Overwrite).unwrap();
        fill::<u16>(&output, other.grid.shape);
        assert_ramp::<u16>(&Volume::open(&location, &select).unwrap());
    }
}

#[test]
fn what_differs_on_resume_is_named() {
    for (name, format) in CONTAINERS {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let spec = spec([6, 7, 8], [3, 4, 8], format);
        create(&location, &spec, Existing::Refuse).unwrap();
        let mut grid = spec.grid;
        grid.spacing[1] *= 2.0;
        for (other, words) in [
            (Spec { dtype: Dtype::F32, ..spec.clone() }, ["data_type", "dtype", "dataType"]),
            (Spec { chunk: [3, 4, 4], ..spec.clone() }, ["chunk_grid", "chunks", "blockSize"]),
            (Spec { codec: Codec::Raw, ..spec.clone() }, ["codecs", "compressor", "compression"]),
            (Spec { grid, ..spec.clone() }, ["voxel size"; 3]),
        ] {
            let error = create(&location, &other, Existing::Resume).unwrap_err().to_string();
            assert!(words.iter().any(|word| error.contains(word)), "{error}");
        }
    }
}

#[test]
fn a_folder_or_file_that_is_no_volume_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("a.jpg"), "x").unwrap();
    fs::write(folder.path().join("notes.tif"), "not a tiff").unwrap();
    for format in [Format::Zarr3, Format::Zarr2, Format::N5, Format::Tiff] {
        let spec = spec([4; 3], [4; 3], format);
        for existing in [Existing::Refuse, Existing::Resume, Existing::Overwrite] {
            create(&at(&folder, "photos"), &spec, existing).unwrap_err();
            create(&at(&folder, "photos/a.jpg"), &spec, existing).unwrap_err();
            create(&at(&folder, "notes.tif"), &spec, existing).unwrap_err();
        }
    }
    assert_eq!(fs::read(photos.join("a.jpg")).unwrap(), b"x");
    assert_eq!(fs::read_dir(&photos).unwrap().count(), 1);
    assert_eq!(fs::read(folder.path().join("notes.tif")).unwrap(), b"not a tiff");
}

#[test]
fn a_group_with_other_arrays_is_not_replaced_but_its_arrays_are() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("z.zarr", Format::Zarr3), ("n.n5", Format::N5)] {
        let spec = spec([4; 3], [4; 3], format);
        let fixed = at(&folder, &format!("{name}/fixed"));
        let moving = at(&folder, &format!("{name}/moving"));
        fill::<u16>(&create(&fixed, &spec, Existing::Refuse).unwrap(), [4; 3]);
        create(&moving, &spec, Existing::Refuse).unwrap();
        if format == Format::N5 {
            let error = create(&at(&folder, name), &spec, Existing::Overwrite).unwrap_err();
            assert!(error.to_string().contains("moving"), "{error}");
        }
        create(&moving, &spec, Existing::Overwrite).unwrap();
        assert_ramp::<u16>(&Volume::open(&fixed, &Select::default()).unwrap());
    }
}

#[test]
fn no_folder_above_a_volume_is_ever_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Vec::new();
    for (name, format) in [
        ("data/a.zarr", Format::Zarr3),
        ("data/b.n5", Format::N5),
        ("plate.zarr/A/1/0", Format::Zarr3),
        ("plate.zarr/A/1/field/deep/deeper/0", Format::Zarr3),
        ("pair.zarr/fixed", Format::Zarr3),
        ("pair.zarr/moving", Format::Zarr3),
    ] {
        let location = at(&folder, name);
        let output = create(&location, &spec([4; 3], [4; 3], format), Existing::Refuse).unwrap();
        fill::<u16>(&output, [4; 3]);
        kept.push(location);
    }
    for name in ["data", "plate.zarr", "plate.zarr/A", "pair.zarr"] {
        let location = at(&folder, name);
        for format in [Format::Zarr3, Format::N5] {
            let spec = spec([4; 3], [4; 3], format);
            create(&location, &spec, Existing::Overwrite).unwrap_err();
        }
        FieldOutput::create(&location, &grid([4; 3]), [4; 3], Existing::Overwrite).unwrap_err();
        FieldOutput::create(&location, &grid([4; 3]), [4; 3], Existing::Resume).unwrap_err();
        write_small_array(&location, &[1], &[1.0], serde_json::Map::new()).unwrap_err();
    }
    for location in kept {
        assert_ramp::<u16>(&Volume::open(&location, &Select::default()).unwrap());
    }
}

#[test]
fn an_interrupted_creation_is_resumed() {
    for (name, format) in CONTAINERS {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let spec = spec([4; 3], [4; 3], format);
        let output = create(&location, &spec, Existing::Refuse).unwrap();
        // the state after an interruption between the creation of the group and that of the array
        fs::remove_dir_all(output.ledger_folder().parent().unwrap()).unwrap();
        let output = create(&location, &spec, Existing::Resume).unwrap();
        fill::<u16>(&output, [4; 3]);
        assert_ramp::<u16>(&Volume::open(&location, &Select::default()).unwrap());
    }
}

#[test]
fn volumes_and_outputs_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Volume>();
    shared::<Output>();
    shared::<FieldFile>();
    shared::<FieldOutput>();
}

#[test]
fn specs_that_cannot_be_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let good = spec([6, 7, 8], [3, 4, 8], Format::Zarr3);
    let mut grid = good.grid;
    grid.spacing[0] = f64::NAN;
    for bad in [
        Spec { shard: Some([4, 4, 8]), ..good.clone() },
        Spec { shard: Some([6, 8, 8]), format: Format::Zarr2, ..good.clone() },
        Spec { chunk: [0, 4, 8], ..good.clone() },
        Spec { grid, ..good.clone() },
        Spec { grid: super::grid([0, 7, 8]), ..good.clone() },
    ] {
        create(&location, &bad, Existing::Refuse).unwrap_err();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_box_that_is_no_union_of_units_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec([6, 7, 8], [3, 4, 8], Format::Zarr3);
    let output = create(&at(&folder, "a.zarr"), &spec, Existing::Refuse).unwrap();
    for part in [
        Box3::new([1, 0, 0], [3, 4, 8]),
        Box3::new([0, 0, 0], [3, 5, 8]),
        Box3::new([0, 0, 0], [9, 4, 8]),
    ] {
        let error = output.write(&part, &ramp::<u16>(&part)).unwrap_err().to_string();
        assert!(error.contains("whole units"), "{error}");
    }
    let part = Box3::of_shape([3, 4, 8]);
    assert!(output.write(&part, &ramp::<f32>(&part)).unwrap_err().to_string().contains("float32"));
}

#[test]
fn two_writers_of_the_same_chunks_leave_whole_chunks() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("a.zarr", Format::Zarr3), ("a.n5", Format::N5), ("a.tif", Format::Tiff)]
    {
        let location = at(&folder, name);
        let spec = spec([8; 3], [4; 3], format);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let output = create(&location, &spec, Existing::Resume).unwrap();
                    for _ in 0..5 {
                        fill::<u16>(&output, spec.grid.shape);
                    }
                });
            }
        });
        assert_ramp::<u16>(&Volume::open(&location, &Select::default()).unwrap());
        let output = create(&location, &spec, Existing::Resume).unwrap();
        let partial = output.ledger_folder().join("partial");
        assert!(fs::read_dir(partial).map_or(0, Iterator::count) == 0);
    }
}

#[test]
fn a_file_that_several_begin_at_once_is_whole_also_where_a_stale_ledger_lay() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec([8; 3], [4; 3], Format::Tiff);
    for round in 0..200 {
        let location = at(&folder, &format!("{round}.tif"));
        let stale = folder.path().join(format!("{round}.tif.voxloom"));
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join("planes"), "0 8\n").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let output = create(&location, &spec, Existing::Resume).unwrap();
                    fill::<u16>(&output, spec.grid.shape);
                });
            }
        });
        assert_ramp::<u16>(&Volume::open(&location, &Select::default()).unwrap());
    }
}

#[test]
fn a_file_takes_its_name_when_all_planes_are_there() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("a.tif", Format::Tiff), ("a.npy", Format::Npy)] {
        let location = at(&folder, name);
        let spec = spec([4, 5, 6], [1; 3], format);
        for z in [2, 0, 1, 3] {
            assert!(!std::path::Path::new(&location).exists());
            let output = create(&location, &spec, Existing::Resume).unwrap();
            assert_eq!(output.unit(), [1, 5, 6]);
            let part = Box3::new([z, 0, 0], [z + 1, 5, 6]);
            output.write(&part, &ramp::<u16>(&part)).unwrap();
        }
        let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
        assert_ramp::<u16>(&Volume::open(&location, &select).unwrap());
    }
}

#[test]
fn an_attribute_is_set_and_replaced_and_kept_on_resume() {
    for (name, format) in CONTAINERS {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let spec = spec([4; 3], [4; 3], format);
        let output = create(&location, &spec, Existing::Refuse).unwrap();
        output.set_attribute("receipt", serde_json::json!({"a": 1})).unwrap();
        output.set_attribute("receipt", serde_json::json!({"a": 2})).unwrap();
        create(&location, &spec, Existing::Resume).unwrap();
        let volume = Volume::open(&location, &Select::default()).unwrap();
        assert_eq!(volume.attribute("receipt"), Some(&serde_json::json!({"a": 2})));
        assert_eq!(volume.grid(), spec.grid);
    }
}

#[test]
fn a_full_disk_is_an_io_error_of_the_system() {
    let full = std::path::Path::new("/dev/full");
    let error = Error::io("write", full, fs::write(full, "x").unwrap_err());
    let source = std::error::Error::source(&error).unwrap();
    let source = source.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn levels_are_listed_with_their_grids() {
    for (name, format) in CONTAINERS {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let first = spec([8, 8, 8], [4; 3], format);
        create(&location, &first, Existing::Refuse).unwrap();
        let spacing = first.grid.spacing.map(|v| 2.0 * v);
        let origin = std::array::from_fn(|a| first.grid.origin[a] + 0.5 * first.grid.spacing[a]);
        let second = Spec { grid: Grid::new([4; 3], spacing, origin), ..first.clone() };
        let level = if format == Format::N5 { "s1" } else { "1" };
        create(&format!("{location}/{level}"), &second, Existing::Refuse).unwrap();
        for asked in [location.clone(), format!("{location}/{level}")] {
            let found = levels(&asked).unwrap();
            let grids: Vec<Grid> = found.iter().map(|level| level.grid).collect();
            assert_eq!(grids, [first.grid, second.grid], "{format:?}");
            assert!(found[1].location.ends_with(level));
        }
        let moved = Grid::new([4; 3], spacing, [1.0; 3]);
        add_level(&location, level, &moved).unwrap();
        assert_eq!(levels(&location).unwrap()[1].grid, moved);
        assert_eq!(Volume::open(&location, &Select::default()).unwrap().grid(), first.grid);
        let error = add_level(&location, "7", &moved).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}

#[test]
fn a_small_array_is_whole_also_where_several_write_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    std::thread::scope(|scope| {
        for writer in 1..4 {
            let location = &location;
            scope.spawn(move || {
                for length in [3, 5] {
                    let data = vec![f64::from(writer); length];
                    let shape = [length as u64];
                    for _ in 0..60 {
                        write_small_array(location, &shape, &data, serde_json::Map::new()).unwrap();
                    }
                }
            });
        }
    });
    let (shape, data, _) = read_small_array(&location).unwrap();
    assert_eq!(shape, [5]);
    assert!(data[0] >= 1.0 && data == vec![data[0]; 5]);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "something stayed behind");
}

#[test]
fn an_image_of_several_channels_says_which_dimension_is_which_and_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("a.zarr", Format::Zarr3), ("b.zarr", Format::Zarr2)] {
        let location = folder.path().join(name).display().to_string();
        let shard = (format == Format::Zarr3).then_some([4, 8, 8]);
        let spec = Spec { shard, ..spec([6, 7, 8], [4, 4, 8], format) };
        let write = |existing: Existing| {
            let output = Output::create_channels(&location, &spec, 2, existing)?;
            for c in 0..2 {
                for tile in Box3::of_shape([6, 7, 8]).tiles(output.unit()) {
                    let voxels: Vec<u16> =
                        tile.tiles([1; 3]).map(|v| (c * 1000 + v.min[2] as usize) as u16).collect();
                    output.write_channel(c, &tile, &voxels)?;
                }
            }
            Ok::<(), Error>(())
        };
        write(Existing::Refuse).unwrap();
        write(Existing::Resume).unwrap();
        for c in 0..2 {
            let select = Select { channel: Some(c), ..Select::default() };
            let volume = Volume::open(&location, &select).unwrap();
            assert_eq!((volume.grid(), volume.channels()), (spec.grid, 2));
            let voxels = volume.read::<u16>(&volume.grid().bounds()).unwrap();
            assert!(voxels.iter().enumerate().all(|(i, v)| usize::from(*v) == c * 1000 + i % 8));
        }
        let message = Volume::open(&location, &Select::default()).unwrap_err().to_string();
        assert!(message.contains("--channel"), "{message}");
        let message = Output::create(&location, &spec, Existing::Resume).unwrap_err().to_string();
        assert!(message.contains("cannot be resumed"), "{message}");
    }
    let location = folder.path().join("c.tif").display().to_string();
    let spec = spec([6, 7, 8], [1, 7, 8], Format::Tiff);
    let message = Output::create_channels(&location, &spec, 2, Existing::Refuse).unwrap_err();
    assert!(message.to_string().contains("OME-Zarr"), "{message}");
}
