use super::*;
use crate::geom::{Box3, Grid};
use crate::volume::{Dtype, Existing};

#[test]
fn a_volume_goes_through_every_format_voxel_for_voxel() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let shape = [5, 37, 43];
    let spec = Spec {
        grid: Grid::new(shape, [2.0, 0.5, 0.25], [10.0, 0.0, -3.0]),
        dtype: Dtype::U16,
        chunk: [4, 16, 16],
        shard: None,
        codec: Codec::default(),
        format: Format::Zarr3,
    };
    let voxels: Vec<u16> = (0..5 * 37 * 43).map(|i: u32| (i * 7919 % 65521) as u16).collect();
    let first = at("first.zarr");
    let output = Output::create(&first, &spec, Existing::Refuse).unwrap();
    let whole = Box3::of_shape(shape);
    output.write(&whole, &voxels).unwrap();
    let ctx = Context { threads: 2, ..Context::default() };
    let mut source = first;
    for (name, format) in [
        ("a.zarr", Format::Zarr2),
        ("b.n5", Format::N5),
        ("c.tif", Format::Tiff),
        ("d.npy", Format::Npy),
        ("e.zarr", Format::Zarr3),
    ] {
        let to = at(name);
        let select = Select {
            // a .npy has no spacing
            spacing: source.ends_with("npy").then_some(spec.grid.spacing),
            ..Select::default()
        };
        volume(&source, &select, &to, format, &VolumeStorage::default(), &ctx).unwrap();
        let select = Select { spacing: Some(spec.grid.spacing), ..Select::default() };
        let copy = Volume::open(&to, &select).unwrap();
        assert_eq!(copy.read::<u16>(&whole).unwrap(), voxels, "{name}");
        source = to;
    }
}

#[test]
fn codecs_have_names_and_others_are_refused() {
    assert_eq!(parse_codec("raw"), Ok(Codec::Raw));
    assert!(parse_codec("lzma").is_err());
}
