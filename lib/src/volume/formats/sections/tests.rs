//! Compares stacks of sections with a slow reference, and tests damaged tables.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::geom::{Box3, Grid};
use crate::volume::{Codec, Existing, Output, Select, Spec, Volume};

/// The value of a pixel of section `z`.
fn value(z: i64, y: usize, x: usize) -> u8 {
    ((z.rem_euclid(97) as usize * 31 + y * 7 + x * 3) % 250 + 1) as u8
}

/// Writes a section as PNG, TIFF or Zarr, according to the file extension.
fn write(path: &Path, z: i64, [height, width]: [usize; 2]) {
    let pixels: Vec<u8> = (0..height * width).map(|i| value(z, i / width, i % width)).collect();
    write_pixels(path, [height, width], &pixels);
}

fn write_pixels(path: &Path, [height, width]: [usize; 2], pixels: &[u8]) {
    if path.extension().is_some_and(|extension| extension == "png") {
        let file = fs::File::create(path).unwrap();
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        return;
    }
    let is_tiff = path.extension().is_some_and(|extension| extension == "tif");
    let grid = Grid::plane([height, width], [0.5, 0.25], [0.0, 0.0]);
    let spec = Spec {
        grid,
        dtype: Dtype::U8,
        chunk: [1, 5, 7],
        shard: None,
        codec: Codec::Blosc,
        format: if is_tiff { Format::Tiff } else { Format::Zarr3 },
    };
    let output = Output::create(&path.display().to_string(), &spec, Existing::Refuse).unwrap();
    output.write(&grid.bounds(), pixels).unwrap();
}

/// A section of the reference: z, offset (y, x), size (height, width), file extension, and whether
/// it has a mask.
type Planned = (i64, [i64; 2], [usize; 2], &'static str, bool);

/// Writes the sections and their table; returns the table's location.
fn stack(folder: &Path, comments: &str, sections: &[Planned]) -> String {
    let mut text = format!("{comments}z,location,mask,offset_y,offset_x\n");
    for (z, [y, x], size, extension, masked) in sections {
        let name = format!("s {z}.{extension}");
        write(&folder.join(&name), *z, *size);
        let mut mask = String::new();
        if *masked {
            mask = format!("m{z}.png");
            let inside: Vec<u8> = (0..size[0] * size[1]).map(|i| (i % 3) as u8).collect();
            write_pixels(&folder.join(&mask), *size, &inside);
        }
        text.push_str(&format!("{z},{name},{mask},{y},{x}\n"));
    }
    let table = folder.join("sections.csv");
    fs::write(&table, text).unwrap();
    table.display().to_string()
}

/// The expected voxel at a position (z, y, x) in the coordinates of the table.
fn expected(sections: &[Planned], fill: u8, [z, y, x]: [i64; 3]) -> u8 {
    let Some((_, offset, size, _, masked)) = sections.iter().find(|section| section.0 == z) else {
        return fill;
    };
    let [y, x] = [y - offset[0], x - offset[1]];
    if y < 0 || x < 0 || y >= size[0] as i64 || x >= size[1] as i64 {
        return fill;
    }
    let (y, x) = (y as usize, x as usize);
    if *masked && (y * size[1] + x).is_multiple_of(3) { fill } else { value(z, y, x) }
}

const SPACING: &str = "# any remark: of a person\n# spacing: 40,8,8 nm\n";

#[test]
fn sections_of_any_size_format_and_offset_are_one_volume() {
    let folder = tempfile::tempdir().unwrap();
    let sections: [Planned; 5] = [
        (12, [0, 0], [30, 40], "png", false),
        (-3, [-4, 5], [25, 33], "tif", true),
        (-2, [2, -6], [30, 40], "zarr", false),
        (0, [0, 0], [1, 1], "png", true),
        (3, [20, 30], [17, 9], "tif", false),
    ];
    let table = stack(folder.path(), &format!("{SPACING}# fill: 9\n"), &sections);
    assert!(is_sections(&table));
    assert_eq!(members(&table).len(), 7);
    let volume = Volume::open(&table, &Select::default()).unwrap();
    let first = [-3, -4, -6];
    let grid = volume.grid();
    assert_eq!(grid.shape, [16, 41, 46]);
    assert_eq!(grid.spacing, [0.04, 0.008, 0.008]);
    let origin: [f64; 3] = std::array::from_fn(|a| first[a] as f64 * grid.spacing[a]);
    assert_eq!(grid.origin, origin);
    for part in
        [grid.bounds(), Box3::new([0, 3, 5], [4, 9, 46]), Box3::new([14, 0, 0], [16, 41, 1])]
    {
        let wanted: Vec<u8> = part
            .tiles([1; 3])
            .map(|voxel| {
                let at = std::array::from_fn(|a| voxel.min[a] + first[a]);
                expected(&sections, 9, at)
            })
            .collect();
        assert_eq!(volume.read::<u8>(&part).unwrap(), wanted, "{part}");
    }
    let facts = volume.describe();
    let notes = facts["notes"].to_string();
    assert!(notes.contains("no section at z -1, 1..2, 4..11: 11 of 16 planes"), "{notes}");
    assert!(notes.contains("5 of its 5 sections do not cover the plane of 41 x 46"), "{notes}");
    assert_eq!((&facts["sections"], &facts["missing"]), (&5.into(), &11.into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn boxes_of_a_stack_agree_with_its_sections(
        offsets in prop::collection::vec((-40i64..40, -600i64..600), 3),
        sizes in prop::collection::vec((1usize..70, 1usize..700), 3),
        corner in (0i64..3, 0i64..60, 0i64..500),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sections: Vec<Planned> = (0..3)
            .map(|i| {
                let ((y, x), (height, width)) = (offsets[i], sizes[i]);
                (i as i64, [y, x], [height, width], ["png", "zarr", "tif"][i], i == 1)
            })
            .collect();
        let table = stack(folder.path(), SPACING, &sections);
        let volume = Volume::open(&table, &Select::default()).unwrap();
        let shape = volume.grid().shape;
        let first = [0, 1].map(|a| sections.iter().map(|section| section.1[a]).min().unwrap());
        let max = std::array::from_fn(|a| shape[a] as i64);
        let part = Box3::new([corner.0, corner.1, corner.2], max);
        prop_assume!(!part.is_empty());
        let wanted: Vec<u8> = part
            .tiles([1; 3])
            .map(|v| expected(&sections, 0, [v.min[0], v.min[1] + first[0], v.min[2] + first[1]]))
            .collect();
        prop_assert_eq!(volume.read::<u8>(&part).unwrap(), wanted);
    }
}

#[test]
fn the_spacing_is_that_of_the_flag_or_the_table_and_z_is_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let sections: [Planned; 2] =
        [(5, [0, 0], [8, 9], "tif", false), (6, [0, 2], [8, 9], "zarr", false)];
    let table = stack(folder.path(), "", &sections);
    let refused = Volume::open(&table, &Select::default()).unwrap_err().to_string();
    assert!(
        refused.contains("the table of sections does not say how far apart planes are"),
        "{refused}"
    );
    let spacing = Some([2.0, 0.5, 0.25]);
    let volume = Volume::open(&table, &Select { spacing, ..Select::default() }).unwrap();
    assert_eq!(volume.grid().origin, [10.0, 0.0, 0.0]);
    // a stack of one section is a plane, whose pixel size is read from the file of the section
    let folder = tempfile::tempdir().unwrap();
    let table = stack(folder.path(), "", &sections[1..]);
    let volume = Volume::open(&table, &Select::default()).unwrap();
    assert_eq!(volume.grid(), Grid::plane([8, 9], [0.5, 0.25], [0.0, 0.5]));
    let png: [Planned; 1] = [(0, [0, 0], [8, 9], "png", false)];
    let table = stack(folder.path(), "", &png);
    let refused = Volume::open(&table, &Select::default()).unwrap_err().to_string();
    assert!(refused.contains("its sections do not say"), "{refused}");
}

#[test]
fn every_file_counts_for_the_identity_and_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let sections: [Planned; 3] = [
        (0, [0, 0], [8, 9], "tif", true),
        (1, [0, 0], [8, 9], "zarr", false),
        (2, [0, 0], [8, 9], "png", false),
    ];
    let table = stack(folder.path(), SPACING, &sections);
    let open = || Volume::open(&table, &Select::default()).unwrap();
    let identity = || open().identity().unwrap()["content"].clone();
    let before = identity();
    assert_eq!(before, crate::volume::fingerprint(&table).unwrap());
    assert_eq!(before, identity());
    // the location of the table is not part of the fingerprint
    let other = tempfile::tempdir().unwrap();
    let moved = stack(other.path(), SPACING, &sections);
    assert_eq!(before, crate::volume::fingerprint(&moved).unwrap());
    for name in ["s 0.tif", "m0.png", "s 1.zarr/0/c/1/0", "s 2.png"] {
        let folder = tempfile::tempdir().unwrap();
        let table = stack(folder.path(), SPACING, &sections);
        let volume = Volume::open(&table, &Select::default()).unwrap();
        let watch = volume.watch();
        watch.check().unwrap();
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        // an additional byte at the end does not damage the file: a PNG may have any data after its
        // last chunk
        bytes.push(0);
        fs::write(&path, bytes).unwrap();
        let message = watch.check().unwrap_err().to_string();
        assert!(message.contains("changed while it was read"), "{name}: {message}");
        assert_ne!(before, crate::volume::fingerprint(&table).unwrap(), "{name}");
        fs::remove_file(&path).unwrap();
        let message = watch.check().unwrap_err().to_string();
        assert!(message.contains("while it was read"), "{name}: {message}");
    }
    let text = fs::read_to_string(&table).unwrap().replace("s 2.png,,0,0", "s 2.png,,0,1");
    fs::write(&table, text).unwrap();
    assert_ne!(before, identity());
}

#[test]
fn a_damaged_table_is_refused_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    for (name, size) in [("a.png", [8, 9]), ("b.tif", [8, 9]), ("c.png", [7, 9])] {
        write(&folder.path().join(name), 1, size);
    }
    let table = folder.path().join("sections.csv");
    let refused = |text: &str| {
        fs::write(&table, text).unwrap();
        let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
        Volume::open(&table.display().to_string(), &select).unwrap_err().to_string()
    };
    for (rows, words) in [
        ("", &["lists no section"][..]),
        ("0,a.png\n1,\n", &["line 3", "column location holds ''"]),
        ("0,a.png\nx,b.tif\n", &["line 3", "column z holds 'x', wanted a whole number"]),
        ("0.5,a.png\n", &["line 2", "column z holds '0.5'"]),
        ("99999999999999,a.png\n", &["line 2", "column z"]),
        ("0,a.png\n4,b.tif\n0,b.tif\n", &["line 4", "z 0 already in line 2"]),
        ("0,a.png\n1\n", &["line 3", "has 1 cells"]),
        ("0,missing.png\n", &["line 2", "missing.png: not found"]),
        ("0,sections.csv\n", &["line 2", "is a table of sections itself"]),
    ] {
        let message = refused(&format!("z,location\n{rows}"));
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    for (text, words) in [
        ("z,location,mask\n0,a.png,c.png\n", &["line 2", "a mask has one channel"][..]),
        ("z,location,offset_y\n0,a.png,1.5\n", &["line 2", "wanted a whole number of pixels"]),
        ("# spacing: 1,2\u{b5}\nz,location\n0,a.png\n", &["line 1", "wanted z,y,x (or y,x)"]),
        ("# spacing: 0,2,2\nz,location\n0,a.png\n", &["line 1", "above 0"]),
        ("# fill: 300\nz,location\n0,a.png\n", &["fill 300, which is no uint8"]),
        ("# fill: 3\n# fill: 4\nz,location\n0,a.png\n", &["line 2", "one of its kind"]),
    ] {
        let message = refused(text);
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
    // a section of another element type
    let wide = folder.path().join("w.png");
    let mut encoder = png::Encoder::new(fs::File::create(&wide).unwrap(), 2, 2);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.write_header().unwrap().write_image_data(&[0; 8]).unwrap();
    let message = refused("z,location\n0,a.png\n1,w.png\n");
    assert!(
        message.contains("line 3") && message.contains("uint16, the first section uint8"),
        "{message}"
    );
}

#[test]
fn colours_are_channels_of_the_stack() {
    let folder = tempfile::tempdir().unwrap();
    for (z, size) in [(0u8, [3u32, 4]), (1, [2, 5])] {
        let file = fs::File::create(folder.path().join(format!("{z}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, size[1], size[0]);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..(size[0] * size[1] * 3) as u8).map(|i| 100 * z + i).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }
    let table = folder.path().join("sections.csv");
    fs::write(&table, format!("{SPACING}z,location\n1,1.png\n0,0.png\n")).unwrap();
    let select = Select { channel: Some(2), ..Select::default() };
    let volume = Volume::open(&table.display().to_string(), &select).unwrap();
    assert_eq!((volume.channels(), volume.grid().shape), (3, [2, 3, 5]));
    let found = volume.read::<u8>(&Box3::new([1, 0, 0], [2, 3, 5])).unwrap();
    assert_eq!(found, [102, 105, 108, 111, 114, 117, 120, 123, 126, 129, 0, 0, 0, 0, 0]);
}

#[test]
fn a_folder_of_images_is_the_pattern_of_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let open = |location: String| {
        Volume::open(&location, &Select { spacing: Some([1.0; 3]), ..Select::default() })
    };
    let folder_name = folder.path().display().to_string();
    assert!(open(folder_name.clone()).unwrap_err().to_string().contains("no TIFF or PNG"));
    for z in [10, 9, 1] {
        write(&folder.path().join(format!("s{z}.png")), z, [6, 7]);
    }
    fs::write(folder.path().join("notes.txt"), "a").unwrap();
    let volume = open(folder_name.clone()).unwrap();
    let pattern = open(format!("{folder_name}/*.png")).unwrap();
    let part = volume.grid().bounds();
    assert_eq!(volume.grid().shape, [3, 6, 7]);
    assert_eq!(volume.read::<u8>(&part).unwrap(), pattern.read::<u8>(&part).unwrap());
    assert_eq!(volume.identity().unwrap(), pattern.identity().unwrap());
    assert!(volume.describe()["notes"].to_string().contains("1 other files"));
    write(&folder.path().join("s2.tif"), 2, [6, 7]);
    let message = open(folder_name).unwrap_err().to_string();
    assert!(message.contains("3 PNG") && message.contains("*.png"), "{message}");
}
