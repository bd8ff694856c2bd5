use std::fs::{self, File};

use ::tiff::encoder::{TiffEncoder, colortype};
use ::tiff::tags::Tag;

use super::*;

fn open(location: &str) -> Result<Volume, Error> {
    Volume::open(location, &Select::default())
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_tutorial_s_n5_volume_has_its_known_shape_spacing_and_sum() {
    let location = crate::golden::shared("data/bigstream-tutorial/fix.n5/lowres");
    let location = location.display().to_string();
    let volume = open(&location).unwrap();
    let grid = volume.grid();
    assert_eq!(grid.shape, [149, 241, 456]);
    assert_eq!(grid.spacing, [1.68, 1.84, 1.84]);
    let mut sum = 0u64;
    for tile in grid.bounds().tiles(volume.chunk()) {
        sum += volume.read::<u16>(&tile).unwrap().into_iter().map(u64::from).sum::<u64>();
    }
    assert_eq!(sum, 5_262_943_917);
}

/// Writes a file with the `tiff` crate; page `z` is plane `z` of a ramp.
pub(super) fn pages(
    path: &str,
    shape: [usize; 3],
    description: &str,
    planes: std::ops::Range<i64>,
) {
    let mut encoder = TiffEncoder::new(File::create(path).unwrap())
        .unwrap()
        .with_compression(::tiff::encoder::Compression::Lzw);
    for z in planes {
        let part = Box3::new([z, 0, 0], [z + 1, shape[1] as i64, shape[2] as i64]);
        let mut image =
            encoder.new_image::<colortype::Gray16>(shape[2] as u32, shape[1] as u32).unwrap();
        image.rows_per_strip(3).unwrap();
        image.encoder().write_tag(Tag::ImageDescription, description).unwrap();
        image.write_data(&ramp::<u16>(&part)).unwrap();
    }
}

#[test]
fn compressed_pages_with_ome_xml_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.ome.tif");
    let description = r#"<OME><Image><Pixels DimensionOrder="XYZCT" SizeX="7" SizeY="10" SizeZ="4"
        SizeC="1" SizeT="1" PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25"
        PhysicalSizeZ="1.5"/></Image></OME>"#;
    pages(&location, [4, 10, 7], description, 0..4);
    let volume = open(&location).unwrap();
    assert_eq!(volume.grid().spacing, [1.5, 0.25, 0.25]);
    assert_eq!(volume.chunk(), [1, 10, 7]);
    assert_ramp::<u16>(&volume);
}

#[test]
fn channels_of_an_imagej_hyperstack_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.tif");
    let description = "ImageJ=1.53t\nimages=6\nchannels=2\nslices=3\nunit=um\nspacing=2\n";
    pages(&location, [6, 10, 7], description, 0..6);
    let select = Select { spacing: Some([2.0, 1.0, 1.0]), ..Select::default() };
    assert!(Volume::open(&location, &select).unwrap_err().to_string().contains("2 channels"));
    let volume = Volume::open(&location, &Select { channel: Some(1), ..select }).unwrap();
    assert_eq!(volume.grid().shape, [3, 10, 7]);
    let found = volume.read::<u16>(&Box3::new([2, 1, 0], [3, 2, 7])).unwrap();
    assert_eq!(found, ramp::<u16>(&Box3::new([5, 1, 0], [6, 2, 7])));
}

#[test]
fn planes_that_follow_a_single_directory_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.tif");
    let spec = spec([1, 6, 7], [1, 6, 7], Format::Tiff);
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    fill::<u16>(&output, spec.grid.shape);
    // as in ImageJ files larger than 4 GB: one directory, and the number of planes in the
    // description
    let mut bytes = fs::read(&location).unwrap();
    let text = bytes.windows(8).position(|w| w == b"images=1").unwrap();
    bytes[text + 7] = b'3';
    let slices = bytes.windows(8).position(|w| w == b"slices=1").unwrap();
    bytes[slices + 7] = b'3';
    let more = ramp::<u16>(&Box3::new([1, 0, 0], [3, 6, 7]));
    bytes.extend(more.iter().flat_map(|v| v.to_le_bytes()));
    fs::write(&location, bytes).unwrap();
    let volume = open(&location).unwrap();
    assert_eq!(volume.grid().shape, [3, 6, 7]);
    assert_ramp::<u16>(&volume);
}

#[test]
fn a_stack_of_tiffs_is_read_in_natural_order() {
    let folder = tempfile::tempdir().unwrap();
    for z in 0..12i64 {
        pages(&at(&folder, &format!("s{z}.tif")), [12, 10, 7], "", z..z + 1);
    }
    let location = at(&folder, "s*.tif");
    assert!(open(&location).unwrap_err().to_string().contains("--spacing"));
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    assert_ramp::<u16>(&Volume::open(&location, &select).unwrap());
    pages(&at(&folder, "s20.tif"), [21, 10, 8], "", 20..21);
    let error = Volume::open(&location, &select).unwrap_err().to_string();
    assert!(error.contains("s20.tif") && error.contains("alike"), "{error}");
}

#[test]
fn a_stack_of_pngs_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for z in 0..11i64 {
        let file = File::create(at(&folder, &format!("{z}.png"))).unwrap();
        let mut encoder = ::png::Encoder::new(file, 7, 10);
        encoder.set_color(::png::ColorType::Grayscale);
        encoder.set_depth(::png::BitDepth::Sixteen);
        let voxels = ramp::<u16>(&Box3::new([z, 0, 0], [z + 1, 10, 7]));
        let bytes: Vec<u8> = voxels.iter().flat_map(|v| v.to_be_bytes()).collect();
        encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    }
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    assert_ramp::<u16>(&Volume::open(&at(&folder, "*.png"), &select).unwrap());
    let mut bytes = fs::read(at(&folder, "3.png")).unwrap();
    bytes[60] ^= 1;
    fs::write(at(&folder, "3.png"), bytes).unwrap();
    let volume = Volume::open(&at(&folder, "*.png"), &select).unwrap();
    let error = volume.read::<u16>(&volume.grid().bounds()).unwrap_err();
    assert!(matches!(&error, Error::Chunk { file, .. } if file.ends_with("3.png")), "{error}");
}

#[test]
fn npy_in_fortran_order_is_turned() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "f.npy");
    let shape = [3i64, 10, 7];
    let text = "{'descr': '>u2', 'fortran_order': True, 'shape': (3, 10, 7), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    for x in 0..shape[2] {
        for y in 0..shape[1] {
            bytes.extend((0..shape[0]).flat_map(|z| value::<u16>(z, y, x).to_be_bytes()));
        }
    }
    fs::write(&location, &bytes).unwrap();
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    assert_ramp::<u16>(&Volume::open(&location, &select).unwrap());
    fs::write(&location, &bytes[..bytes.len() - 1]).unwrap();
    let error = Volume::open(&location, &select).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
}
