use super::*;
use crate::geom::{Affine, Box3, Chain, LocalAffines, Transform};
use crate::table::{Spot, write_spots};
use crate::transform::write_chain;
use crate::volume::{Codec, Dtype, Existing, FieldOutput, Format, Output, Spec, Voxel};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn volume<T: Voxel>(&self, name: &str, grid: Grid, value: impl Fn([i64; 3]) -> T) -> String {
        let spec = Spec {
            grid,
            dtype: T::DTYPE,
            chunk: [16; 3],
            shard: None,
            codec: Codec::default(),
            format: Format::Zarr3,
        };
        let location = self.at(name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        let whole = Box3::of_shape(grid.shape);
        let voxels: Vec<T> = whole.tiles([1; 3]).map(|voxel| value(voxel.min)).collect();
        output.write(&whole, &voxels).unwrap();
        location
    }

    /// The output of `inspect` as text, with the folder's name removed, and as JSON.
    fn page(&self, location: &str) -> (String, Value) {
        let page = inspect(location, &Select::default()).unwrap();
        (page.text().replace(&format!("{}/", self.0.path().display()), ""), page.json())
    }
}

#[test]
fn a_volume_shows_how_it_is_stored_and_what_it_holds() {
    let folder = Folder::new();
    let grid = Grid::new([20, 30, 40], [2.0, 0.5, 0.25], [1.0, 0.0, -3.0]);
    let location =
        folder.volume("a.zarr", grid, |[z, _, x]| if x < 36 { 100 } else { 500 + z as u16 });
    let (text, json) = folder.page(&location);
    // the number of stored bytes depends on the compressor's version
    let text: String =
        text.lines().filter(|line| !line.contains("stored")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(text);
    assert_eq!(json["shape"], json!([20, 30, 40]));
    assert_eq!(json["spacing"], json!([2.0, 0.5, 0.25]));
    assert_eq!(json["percentiles"]["99.9"], 519.0);
    assert_eq!(json["foreground"]["fraction"], 0.1);
    assert_eq!(json["sample"]["fraction"], 1.0);
    assert!(json["bytes_stored"].as_u64().unwrap() < json["bytes_raw"].as_u64().unwrap());
}

#[test]
fn values_that_are_not_finite_are_counted_and_left_out() {
    let folder = Folder::new();
    let grid = Grid::new([20; 3], [1.0; 3], [0.0; 3]);
    let location = folder.volume("a.zarr", grid, |at| match at {
        [1, 2, 3] => f32::NAN,
        [4, 5, x] if x < 2 => f32::INFINITY,
        [z, ..] => z as f32,
    });
    let (text, json) = folder.page(&location);
    assert_eq!(json["not_finite"], json!({ "nan": 1, "infinite": 2 }));
    assert_eq!(json["range"], json!([0.0, 19.0]));
    assert!(text.contains("1 NaN, 2 infinite"), "{text}");
}

#[test]
fn a_constant_volume_has_no_foreground() {
    let folder = Folder::new();
    let grid = Grid::new([16; 3], [1.0; 3], [0.0; 3]);
    let (text, json) = folder.page(&folder.volume("a.zarr", grid, |_| 7u8));
    assert!(json["foreground"].is_null() && text.contains("all voxels have the same value"));
}

#[test]
fn a_chain_shows_its_steps_and_what_they_are_made_of() {
    let folder = Folder::new();
    let location = folder.at("chain.json");
    let turn = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]];
    let chain = Chain {
        steps: vec![
            Transform::Affine(Affine::from_parts(turn, [0.0; 3])),
            Transform::Affine(Affine::translation([1.0, 2.0, 3.5])),
        ],
    };
    write_chain(Path::new(&location), &chain).unwrap();
    let (text, json) = folder.page(&location);
    insta::assert_snapshot!(text);
    assert_eq!(json["steps"][0]["affine"]["angle_degrees"], 90.0);
}

#[test]
fn fields_and_local_affines_are_shown_as_steps() {
    let folder = Folder::new();
    let grid = Grid::new([4, 4, 4], [10.0; 3], [0.0; 3]);
    let location = folder.at("field.zarr");
    let field = FieldOutput::create(&location, &grid, [4; 3], Existing::Refuse).unwrap();
    field.write(&grid.bounds(), &vec![[1.0f32, 2.0, 3.0]; 64]).unwrap();
    let (text, _) = folder.page(&location);
    assert!(
        text.contains("displacement field: 4 x 4 x 4 vectors, 10 x 10 x 10 um apart"),
        "{text}"
    );

    let maps = LocalAffines {
        domain: Grid::new([10, 20, 30], [2.0, 1.0, 0.5], [0.0; 3]),
        block: [10, 10, 16],
        overlap: [5.0, 5.0, 4.0],
        affines: vec![Affine::IDENTITY; 4],
    };
    let location = folder.at("local.zarr");
    let none = serde_json::Map::new();
    transform::write_local_affines(&location, &maps, none, Existing::Refuse).unwrap();
    let (text, json) = folder.page(&location);
    assert!(text.contains("1 x 2 x 2 blocks of 10 x 10 x 16 voxels, overlap 5 x 5 x 4"), "{text}");
    assert_eq!(json["steps"][0]["domain"]["shape"], json!([10, 20, 30]));
}

#[test]
fn a_table_shows_its_columns() {
    let folder = Folder::new();
    let location = folder.at("spots.csv");
    let spots: Vec<_> = (0..5)
        .map(|i| Spot {
            position: [f64::from(i), 2.0, 30.0 - f64::from(i)],
            radius: 4.5,
            response: 0.25,
            intensity: 100.0,
        })
        .collect();
    write_spots(Path::new(&location), &spots).unwrap();
    insta::assert_snapshot!(folder.page(&location).0);
}

#[test]
fn what_is_nothing_keeps_the_first_error() {
    let folder = Folder::new();
    let missing = inspect(&folder.at("none.zarr"), &Select::default()).unwrap_err().to_string();
    assert!(missing.contains("none.zarr") && missing.contains("not found"), "{missing}");
    std::fs::write(folder.at("receipt.json"), "{\"results\": {}}").unwrap();
    let other = inspect(&folder.at("receipt.json"), &Select::default()).unwrap_err().to_string();
    assert!(other.contains("is JSON and no transform (found: results)"), "{other}");
}

#[test]
fn the_radius_of_a_pair_of_volumes_is_proposed() {
    let folder = Folder::new();
    let grid = Grid::new([64, 64, 64], [1.0; 3], [0.0; 3]);
    let balls = |[z, y, x]: [i64; 3]| {
        let far = |v: i64| (v.rem_euclid(20) - 10).pow(2);
        let noise = ((z * 7919 + y * 104_729 + x * 1_299_709) % 97) as u16 / 8;
        if far(z) + far(y) + far(x) <= 25 { 400 + noise } else { 100 + noise }
    };
    let open = |name: &str, value: &dyn Fn([i64; 3]) -> u16| {
        Volume::open(&folder.volume(name, grid, value), &Select::default()).unwrap()
    };
    let (fixed, moving) =
        (open("f.zarr", &balls), open("m.zarr", &|[z, y, x]| balls([z, y + 3, x])));
    let json = suggest(&fixed, &moving).unwrap().json();
    let radius = json["extract-spots"]["radius"]["value"].as_str().unwrap().to_owned();
    let (low, high) = radius.split_once("..").unwrap();
    let (low, high): (f64, f64) = (low.parse().unwrap(), high.parse().unwrap());
    assert!((2.0..5.0).contains(&low) && (5.0..12.0).contains(&high), "{radius}");

    let flat = open("flat.zarr", &|_| 100);
    let refused = suggest(&fixed, &flat).unwrap_err().to_string();
    assert!(refused.contains("flat.zarr: nothing stands out"), "{refused}");
    assert_eq!(flat.dtype(), Dtype::U16);
}

#[test]
fn a_volume_without_a_voxel_size_shows_the_rest() {
    let folder = Folder::new();
    let spec = Spec {
        grid: Grid::new([3, 4, 5], [2.0; 3], [0.0; 3]),
        dtype: Dtype::U8,
        chunk: [3, 4, 5],
        shard: None,
        codec: Codec::default(),
        format: Format::Npy,
    };
    let location = folder.at("a.npy");
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    for part in spec.grid.bounds().tiles([1, 4, 5]) {
        output.write(&part, &[7u8; 20]).unwrap();
    }
    let (text, json) = folder.page(&location);
    assert!(text.contains("spacing       unknown"), "{text}");
    assert_eq!((&json["spacing"], &json["shape"]), (&Value::Null, &json!([3, 4, 5])));
    assert_eq!(json["range"], json!([7.0, 7.0]));
    assert!(json.get("extent").is_none());
}

#[test]
fn a_file_that_is_damaged_is_named_by_what_its_name_says() {
    let folder = Folder::new();
    for (name, bytes) in
        [("two.tif", "II"), ("none.tiff", ""), ("number.png", "1.5"), ("u.TIF", "1")]
    {
        let file = folder.at(name);
        std::fs::write(&file, bytes).unwrap();
        let message = inspect(&file, &Select::default()).unwrap_err().to_string();
        assert!(message.contains("as its name says"), "{message}");
    }
}
