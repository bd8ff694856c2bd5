//! The assignment of pages to planes: ImageJ, tifffile, OME-TIFF, and patterns.

use super::*;

/// Pages of 12 x 16 pixels; the samples of page `i` count up from 1000 `i`.
fn numbered(count: u64, description: &[u8]) -> Vec<PageSpec> {
    let mut pages: Vec<PageSpec> =
        (0..count).map(|i| PageSpec::counting(12, 16, 1000 * i)).collect();
    pages[0].description = description.to_vec();
    pages
}

/// The page number of each plane of a volume.
fn order(volume: &Volume) -> Vec<u64> {
    let [z, y, x] = volume.grid().shape;
    assert_eq!([y, x], [12, 16]);
    read_whole(volume).chunks(y * x).map(|plane| plane[0] as u64 / 1000).take(z).collect()
}

fn select(image: Option<&str>, channel: Option<usize>, time: Option<usize>) -> Select {
    Select { image: image.map(str::to_owned), channel, time, ..spaced() }
}

#[test]
fn a_latin_1_description_of_imagej_is_read_byte_by_byte() {
    let folder = Folder::new();
    let text = b"ImageJ=1.54f\nimages=10\nchannels=2\nslices=5\nhyperstack=true\nunit=\xb5m\nspacing=0.7\n";
    let mut pages = numbered(10, text);
    for tag in [282, 283] {
        pages[0].more.push((tag, 5, vec![2, 1]));
    }
    let location = folder.pages("a.tif", &pages);
    let volume =
        Volume::open(&location, &Select { channel: Some(1), ..Select::default() }).unwrap();
    assert_eq!(volume.grid().spacing, [0.7, 0.5, 0.5]);
    assert_eq!(order(&volume), [1, 3, 5, 7, 9]);
}

#[test]
fn tifffile_s_axes_are_dimensions_and_a_shape_alone_is_one_stack() {
    let folder = Folder::new();
    let text = br#"{"shape": [2, 5, 12, 16], "axes": "CZYX"}"#;
    let location = folder.pages("a.tif", &numbered(10, text));
    assert!(refusal(&location).contains("2 channels"));
    assert_eq!(order(&channel(&location, 1)), [5, 6, 7, 8, 9]);
    let location = folder.pages("a.tif", &numbered(10, br#"{"shape": [2, 5, 12, 16]}"#));
    assert_eq!(order(&open(&location).unwrap()), (0..10).collect::<Vec<_>>());
}

#[test]
fn descriptions_that_speak_of_other_pages_than_there_are_stop_it() {
    let folder = Folder::new();
    for text in [
        "ImageJ=1.54f\nimages=20\nslices=20\n",
        "ImageJ=1.54f\nimages=4\nchannels=2\nslices=2\n",
        "ImageJ=1.54f\nslices=3\nframes=12297829382473034411\n",
        "ImageJ=1.54f\nslices=0\nframes=3\n",
        r#"{"shape": [4, 12, 16]}"#,
        r#"{"shape": [18446744073709551615, 12, 16], "axes": "ZYX"}"#,
        r#"{"shape": [10, 12, 17], "axes": "ZYX"}"#,
    ] {
        let error = refusal(&folder.pages("a.tif", &numbered(10, text.as_bytes())));
        assert!(error.contains("page"), "{error}");
    }
    // 3 x 12297829382473034411 is 1 modulo 2^64
    let text = "ImageJ=1.54f\nslices=3\nframes=12297829382473034411\n";
    assert!(refusal(&folder.pages("a.tif", &numbered(1, text.as_bytes()))).contains("no number"));
}

#[test]
fn planes_that_follow_one_directory_must_be_there() {
    let folder = Folder::new();
    let mut page = PageSpec::counting(12, 16, 0);
    page.description = b"ImageJ=1.54f\nimages=3\nslices=3\n".to_vec();
    // the offset of the strip points behind the directory, where ImageJ stores the data
    let at = file(std::slice::from_ref(&page), ByteOrder::Big, false).len() as u64;
    page.more = vec![(273, LONG, vec![at])];
    let mut moved = file(&[page], ByteOrder::Big, false);
    assert_eq!(moved.len() as u64, at);
    for z in 0..3u16 {
        moved.extend((0..12 * 16).flat_map(|i| (1000 * z + i).to_be_bytes()));
    }
    let location = folder.bytes("a.tif", &moved);
    assert_eq!(order(&open(&location).unwrap()), [0, 1, 2]);
    let location = folder.bytes("a.tif", &moved[..moved.len() - 1]);
    assert!(refusal(&location).contains("truncated"));
}

fn ome(images: &str) -> Vec<u8> {
    format!(r#"<?xml version="1.0"?><OME xmlns="http://x" UUID="urn:uuid:1">{images}</OME>"#).into()
}

fn image(name: &str, sizes: [u64; 3], order: &str, data: &str) -> String {
    let [z, c, t] = sizes;
    format!(
        r#"<Image ID="Image:{name}" Name="{name}"><Pixels DimensionOrder="{order}" Type="uint16"
        SizeX="16" SizeY="12" SizeZ="{z}" SizeC="{c}" SizeT="{t}" PhysicalSizeX="500"
        PhysicalSizeXUnit="nm" PhysicalSizeY="0.5" PhysicalSizeZ="1.5">{data}</Pixels></Image>"#
    )
}

#[test]
fn tiff_data_say_which_page_is_which_plane() {
    let folder = Folder::new();
    let mut data = String::new();
    for c in 0..2 {
        for z in 0..5 {
            let ifd = 9 - (5 * c + z);
            data += &format!(r#"<TiffData IFD="{ifd}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"/>"#);
        }
    }
    let text = ome(&image("a", [5, 2, 1], "XYZCT", &data));
    let location = folder.pages("a.ome.tif", &numbered(10, &text));
    assert_eq!(order(&channel(&location, 0)), [9, 8, 7, 6, 5]);
    assert_eq!(order(&channel(&location, 1)), [4, 3, 2, 1, 0]);
    let grid =
        Volume::open(&location, &Select { channel: Some(0), ..Select::default() }).unwrap().grid();
    assert_eq!(grid.spacing, [1.5, 0.5, 0.5]);
}

#[test]
fn the_order_of_dimensions_is_that_of_ome_xml() {
    let folder = Folder::new();
    for (name, c1_t1) in [
        ("XYZCT", [9, 10, 11]),
        ("XYZTC", [9, 10, 11]),
        ("XYCZT", [7, 9, 11]),
        ("XYTZC", [7, 9, 11]),
        ("XYCTZ", [3, 7, 11]),
        ("XYTCZ", [3, 7, 11]),
    ] {
        for data in ["", "<TiffData/>", r#"<TiffData IFD="0" PlaneCount="12"/>"#] {
            let text = ome(&image("a", [3, 2, 2], name, data));
            let location = folder.pages("a.ome.tif", &numbered(12, &text));
            let volume = Volume::open(&location, &select(None, Some(1), Some(1))).unwrap();
            assert_eq!(order(&volume), c1_t1, "{name} {data}");
        }
    }
}

#[test]
fn of_several_images_one_is_chosen_by_number_or_name() {
    let folder = Folder::new();
    let first = image("left", [4, 1, 1], "XYZCT", r#"<TiffData IFD="0" PlaneCount="4"/>"#);
    let second = image("right", [4, 1, 1], "XYZCT", r#"<TiffData IFD="4" PlaneCount="4"/>"#);
    let location = folder.pages("a.ome.tif", &numbered(8, &ome(&(first + &second))));
    let error = refusal(&location);
    assert!(error.contains("--image") && error.contains("0 'left', 1 'right'"), "{error}");
    let volume = |name| Volume::open(&location, &select(Some(name), None, None)).unwrap();
    assert_eq!(order(&volume("0")), [0, 1, 2, 3]);
    for name in ["1", "right", "Image:right"] {
        assert_eq!(order(&volume(name)), [4, 5, 6, 7]);
    }
    assert_ne!(volume("0").identity().unwrap(), volume("1").identity().unwrap());
    let error = Volume::open(&location, &select(Some("middle"), None, None)).unwrap_err();
    assert!(error.to_string().contains("no image 'middle'"), "{error}");
    let plain = folder.pages("b.tif", &numbered(2, b""));
    assert!(Volume::open(&plain, &select(Some("1"), None, None)).is_err());
    assert!(Volume::open(&plain, &select(Some("0"), None, None)).is_ok());
}

#[test]
fn a_map_that_leaves_planes_out_or_leads_nowhere_is_refused() {
    let folder = Folder::new();
    let refused = |sizes: [u64; 3], data: &str, word: &str| {
        let text = ome(&image("a", sizes, "XYZCT", data));
        let error = refusal(&folder.pages("a.ome.tif", &numbered(4, &text)));
        assert!(error.contains(word), "{error}");
    };
    refused([4, 1, 1], r#"<TiffData IFD="0" PlaneCount="3"/>"#, "1 of its 4 planes");
    refused([4, 1, 1], r#"<TiffData IFD="2" PlaneCount="4"/>"#, "page 6");
    refused([4, 1, 1], r#"<TiffData IFD="0" FirstZ="9"/>"#, "begin at z 9");
    refused([4, 1, 1], r#"<TiffData IFD="x"/>"#, "a count is wanted");
    refused([4, 1, 1], r#"<TiffData FirstZ="2" PlaneCount="18446744073709551615"/>"#, "room");
    refused([5, 1, 1], "<TiffData/>", "there are 4 pages");
    refused([1 << 32, 1 << 32, 1], "<TiffData/>", "there are 4 pages");
    refused([0, 1, 1], "<TiffData/>", "4 pages");
    let elsewhere = r#"<TiffData IFD="0" PlaneCount="4"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>"#;
    refused([4, 1, 1], elsewhere, "'b.ome.tif', which is not beside it");
    let text = ome(r#"<BinaryOnly MetadataFile="c.companion.ome" UUID="urn:uuid:3"/>"#);
    let error = refusal(&folder.pages("a.ome.tif", &numbered(4, &text)));
    assert!(error.contains("c.companion.ome"), "{error}");
}

#[test]
fn planes_in_files_beside_it_are_found_and_a_renamed_file_knows_itself() {
    let folder = Folder::new();
    let data = r#"<TiffData IFD="1" FirstZ="0" PlaneCount="2"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>
        <TiffData IFD="0" FirstZ="2" PlaneCount="2"><UUID FileName="old-name.ome.tif">urn:uuid:1</UUID></TiffData>"#;
    let text = ome(&image("a", [4, 1, 1], "XYZCT", data));
    let location = folder.pages("a.ome.tif", &numbered(2, &text));
    let others = numbered(7, b"");
    folder.pages("b.ome.tif", &others[4..]);
    assert_eq!(order(&open(&location).unwrap()), [5, 6, 0, 1]);
}

#[test]
fn colours_of_ome_tiff_are_channels_too() {
    let folder = Folder::new();
    let mut pages = numbered(2, &ome(&image("a", [2, 3, 1], "XYCZT", "<TiffData/>")));
    for page in &mut pages {
        page.samples = page.samples.iter().flat_map(|v| [*v, v + 300, v + 600]).collect();
        page.size[2] = 3;
    }
    let location = folder.pages("a.ome.tif", &pages);
    assert!(refusal(&location).contains("3 channels"));
    let volume = channel(&location, 2);
    assert_eq!(volume.grid().shape, [2, 12, 16]);
    assert_eq!(read_whole(&volume)[12 * 16 + 1], 1601.0);
}

#[test]
fn files_of_a_pattern_give_all_their_pages_in_order() {
    let folder = Folder::new();
    let pages = numbered(5, b"");
    folder.pages("part_2.tif", &pages[..2]);
    folder.pages("part_10.tif", &pages[2..]);
    assert_eq!(order(&open(&folder.at("part_*.tif")).unwrap()), [0, 1, 2, 3, 4]);
    let text = b"ImageJ=1.54f\nimages=2\nchannels=2\n";
    folder.pages("part_11.tif", &numbered(2, text));
    let error = refusal(&folder.at("part_*.tif"));
    assert!(error.contains("part_11.tif") && error.contains("2 pages"), "{error}");
    folder.pages("part_11.tif", &numbered(1, b"ImageJ=1.54f\nimages=9\nslices=9\n"));
    let error = refusal(&folder.at("part_*.tif"));
    assert!(error.contains("part_11.tif") && error.contains("more planes"), "{error}");
}

#[test]
fn a_message_quotes_little_of_a_file() {
    let folder = Folder::new();
    let long = "x".repeat(20_000);
    let second = image("b", [4, 1, 1], "XYZCT", "");
    for text in [
        ome(&(image(&long, [4, 1, 1], "XYZCT", "") + &second)),
        ome(&image("a", [4, 1, 1], &long, "")),
        ome(&format!(r#"<BinaryOnly MetadataFile="{long}"/>"#)),
        ome(&format!("<{long}")),
        ome(&image("a", [4, 1, 1], "XYZCT", &format!(r#"<TiffData IFD="{long}"/>"#))),
    ] {
        refusal(&folder.pages("a.ome.tif", &numbered(4, &text)));
    }
}
