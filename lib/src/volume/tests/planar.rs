//! Planar images stay planar: a z spacing or origin is neither required nor invented.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn plane(shape: [usize; 2]) -> Grid {
    Grid::plane(shape, [0.5, 0.25], [3.0, -1.0])
}

fn spec(grid: Grid, format: Format) -> Spec {
    Spec { grid, dtype: Dtype::U16, chunk: [1, 16, 16], shard: None, codec: Codec::Blosc, format }
}

fn filled(location: &str, spec: &Spec) {
    let output = Output::create(location, spec, Existing::Refuse).unwrap();
    fill::<u16>(&output, spec.grid.shape);
}

#[test]
fn a_plane_is_written_with_two_axes_and_read_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("3.zarr", Format::Zarr3),
        ("2.zarr", Format::Zarr2),
        ("a.n5", Format::N5),
        ("plane.tif", Format::Tiff),
        ("a.npy", Format::Npy),
    ] {
        let location = at(&folder, name);
        let mut spec = spec(plane([20, 37]), format);
        filled(&location, &spec);
        let mut select = Select::default();
        if format == Format::Npy {
            // `.npy` files have no spacing and origin
            select.spacing = Some([f64::NAN, 0.5, 0.25]);
            select.origin = Some([0.0, 3.0, -1.0]);
        }
        let volume = Volume::open(&location, &select).unwrap();
        assert_eq!(volume.grid(), spec.grid, "{name}");
        assert_ramp::<u16>(&volume);
        let facts = volume.describe();
        // TIFF volumes have further dimensions, time and channel, of size 1
        let axes = facts["axes"].as_array().unwrap();
        assert!(axes.ends_with(&[json!("y"), json!("x")]) && !axes.contains(&json!("z")), "{name}");
        assert_eq!(facts["array_shape"].as_array().unwrap().len(), axes.len(), "{name}: {facts}");
        for key in ["shape", "spacing", "origin"] {
            assert_eq!(facts[key].as_array().map(Vec::len), Some(2), "{name} {key}: {facts}");
        }
        // the output can be resumed only as planar
        Output::create(&location, &spec, Existing::Resume).unwrap();
        spec.grid.planar = false;
        assert!(Output::create(&location, &spec, Existing::Resume).is_err(), "{name}");
    }
}

#[test]
fn the_metadata_of_a_plane_name_no_z() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    filled(&location, &spec(plane([20, 37]), Format::Zarr3));
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(Path::new(&location).join(path)).unwrap()).unwrap()
    };
    let array = read("0/zarr.json");
    assert_eq!(
        (&array["shape"], &array["dimension_names"]),
        (&json!([20, 37]), &json!(["y", "x"]))
    );
    let image = &read("zarr.json")["attributes"]["ome"]["multiscales"][0];
    let names: Vec<&Value> = image["axes"].as_array().unwrap().iter().map(|a| &a["name"]).collect();
    assert_eq!(names, ["y", "x"]);
    let steps = &image["datasets"][0]["coordinateTransformations"];
    assert_eq!(steps[0]["scale"], json!([0.5, 0.25]));
    assert_eq!(steps[1]["translation"], json!([3.0, -1.0]));
    // ImageJ interprets `spacing` as the distance between planes
    let tiff = at(&folder, "plane.tif");
    filled(&tiff, &spec(plane([20, 37]), Format::Tiff));
    let bytes = fs::read(&tiff).unwrap();
    assert!(!bytes.windows(8).any(|word| word == b"spacing="));
}

#[test]
fn channels_of_a_plane_have_three_axes() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let spec = spec(plane([20, 37]), Format::Zarr3);
    let output = Output::create_channels(&location, &spec, 2, Existing::Refuse).unwrap();
    for part in spec.grid.bounds().tiles([1, 16, 16]) {
        for channel in 0..2 {
            let voxels = ramp::<u16>(&part).into_iter().map(|v| v + channel as u16);
            output.write_channel(channel, &part, &voxels.collect::<Vec<_>>()).unwrap();
        }
    }
    for channel in 0..2 {
        let select = Select { channel: Some(channel), ..Select::default() };
        let volume = Volume::open(&location, &select).unwrap();
        assert_eq!((volume.grid(), volume.channels()), (spec.grid, 2));
        let all = spec.grid.bounds();
        let wanted: Vec<u16> = ramp::<u16>(&all).into_iter().map(|v| v + channel as u16).collect();
        assert_eq!(volume.read::<u16>(&all).unwrap(), wanted);
    }
}

#[test]
fn two_lengths_are_a_planes_and_three_make_a_volume_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    filled(&location, &spec(plane([20, 37]), Format::Zarr3));
    let open = |location: &str, spacing| {
        Volume::open(location, &Select { spacing: Some(spacing), ..Select::default() })
    };
    let thick = open(&location, [7.0, 1.0, 2.0]).unwrap().grid();
    assert_eq!((thick.planar, thick.spacing), (false, [7.0, 1.0, 2.0]));
    let thin = open(&location, [f64::NAN, 1.0, 2.0]).unwrap().grid();
    assert_eq!((thin.planar, thin.spacing), (true, [1.0, 1.0, 2.0]));
    let stack = at(&folder, "b.zarr");
    let grid = Grid::new([3, 16, 16], [1.0; 3], [0.0; 3]);
    filled(&stack, &spec(grid, Format::Zarr3));
    let message = open(&stack, [f64::NAN, 1.0, 2.0]).unwrap_err().to_string();
    assert!(message.contains("3 planes") && message.contains("z,y,x"), "{message}");
}
