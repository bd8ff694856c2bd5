use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::geom::{Grid, LocalAffines};
use crate::volume::{Existing, FieldOutput};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// The error of reading `text`, with the folder's name removed.
    fn refusal(&self, text: impl AsRef<[u8]>) -> String {
        let location = self.put("t", text);
        let Err(error) = read_chain(&[location]) else { panic!("it was read") };
        self.shown(&error)
    }

    fn shown(&self, error: &Error) -> String {
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn document(transformations: impl Into<Value>) -> Value {
    json!({
        "type": "sequence",
        "direction": "fixed-to-moving",
        "axes": ["z", "y", "x"],
        "unit": "micrometer",
        "transformations": transformations.into(),
    })
}

fn read(value: &Value) -> Affine {
    let folder = Folder::new();
    let location = folder.put("t.json", value.to_string());
    read_affine(&[location]).unwrap()
}

fn with(key: &str, value: Value) -> Value {
    let mut document = document(json!([{ "type": "translation", "translation": [1, 2, 3] }]));
    document[key] = value;
    document
}

fn without(key: &str) -> Value {
    let mut document = document(json!([{ "type": "identity" }]));
    document.as_object_mut().unwrap().shift_remove(key);
    document
}

fn any_affine() -> impl Strategy<Value = Affine> {
    let linear = prop::array::uniform3(prop::array::uniform4(-0.3..0.3f64));
    (linear, -300..300i32).prop_map(|(mut rows, exponent)| {
        for (a, row) in rows.iter_mut().enumerate() {
            row[a] += 1.0;
            row[3] *= 10f64.powi(exponent);
        }
        Affine::from_rows(rows)
    })
}

fn bits(map: &Affine) -> [[u64; 4]; 3] {
    map.rows().map(|row| row.map(f64::to_bits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_chain_of_affines_comes_back_bit_for_bit(maps in prop::collection::vec(any_affine(), 0..4)) {
        let folder = Folder::new();
        let path = folder.path("deep/chain.json");
        let chain = Chain { steps: maps.iter().map(|map| Transform::Affine(*map)).collect() };
        write_chain(&path, &chain).unwrap();
        let back = read_chain(&[path.display().to_string()]).unwrap();
        prop_assert_eq!(back.steps.len(), maps.len());
        for (step, map) in back.steps.iter().zip(&maps) {
            let Transform::Affine(step) = step else { panic!("no matrix") };
            prop_assert_eq!(bits(step), bits(map));
        }
    }

    #[test]
    fn a_text_matrix_comes_back_bit_for_bit_in_either_order(map in any_affine()) {
        let folder = Folder::new();
        for axes in [AxisOrder::Zyx, AxisOrder::Xyz] {
            let path = folder.path("m.txt");
            write_matrix_text(&path, &map, axes).unwrap();
            prop_assert_eq!(bits(&read_matrix_text(&path, axes).unwrap()), bits(&map));
        }
    }
}

#[test]
fn a_document_looks_like_this() {
    let folder = Folder::new();
    let path = folder.path("run/chain.json");
    let steps = [
        Step::Affine(Affine::translation([0.1, -2.0, 1e-9])),
        Step::LocalAffines(folder.path("run/local.zarr").display().to_string()),
        Step::Field(folder.path("fields/x/../deform.zarr/0").display().to_string()),
        Step::Field("s3://bucket/deform.zarr".to_owned()),
    ];
    write_document(&path, &steps).unwrap();
    insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap());
    let mut back = read_document(&path, Direction::FixedToMoving).unwrap();
    let Step::Field(field) = &mut back[2] else { panic!("no field") };
    *field = field.replace("run/../fields", "fields/x/..");
    assert_eq!(back, steps);
}

#[test]
fn a_document_linked_elsewhere_finds_its_arrays_where_it_really_lies() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("run/field.zarr")).unwrap();
    let array = folder.path("run/field.zarr").canonicalize().unwrap().display().to_string();
    write_document(&folder.path("run/chain.json"), &[Step::Field(array.clone())]).unwrap();
    std::fs::create_dir(folder.path("work")).unwrap();
    std::os::unix::fs::symlink("../run/chain.json", folder.path("work/chain.json")).unwrap();
    let steps = read_document(&folder.path("work/chain.json"), Direction::FixedToMoving).unwrap();
    assert_eq!(steps, [Step::Field(array)]);
}

#[test]
fn an_array_that_is_not_there_is_named_with_its_document() {
    let folder = Folder::new();
    let text = document(json!([{ "type": "displacements", "path": "gone.zarr" }])).to_string();
    assert_eq!(
        folder.refusal(text),
        "t: refers to gone.zarr, which is not there; keep it where the document says"
    );
}

#[test]
fn every_kind_of_matrix_is_read_in_the_order_of_its_document() {
    let map = read(&document(json!([
        { "type": "identity" },
        { "type": "scale", "scale": [1, 2, 4] },
        { "type": "sequence", "transformations": [
            { "type": "rotation", "rotation": [[1, 0, 0], [0, 0, -1], [0, 1, 0]] },
            { "type": "translation", "translation": [10, 20, 30] },
        ]},
        { "type": "bijection", "forward":
            { "type": "affine", "affine": [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] },
          "inverse": { "type": "identity" } },
    ])));
    // (1, 1, 1) -> (1, 2, 4) -> (1, -4, 2) -> (11, 16, 32) -> (12, 16, 32)
    assert_eq!(map.apply([1.0, 1.0, 1.0]), [12.0, 16.0, 32.0]);
}

#[test]
fn axes_x_y_z_and_other_units_are_turned_when_they_are_stated() {
    let affine =
        json!([{ "type": "affine", "affine": [[1, 2, 3, 10], [0, 5, 6, 20], [0, 0, 9, 30]] }]);
    let mut value = document(affine);
    value["axes"] = json!(["x", "y", "z"]);
    value["unit"] = json!("nanometer");
    let rows = [[9.0, 0.0, 0.0, 0.03], [6.0, 5.0, 0.0, 0.02], [3.0, 2.0, 1.0, 0.01]];
    assert_eq!(read(&value).rows(), rows);

    let axis = |name: &str| json!({ "name": name, "type": "space", "unit": "millimeter" });
    let mut value = document(json!([{ "type": "translation", "translation": [1, 2, 3] }]));
    value["axes"] = json!([axis("x"), axis("y"), axis("z")]);
    value.as_object_mut().unwrap().shift_remove("unit");
    assert_eq!(read(&value).offset(), [3000.0, 2000.0, 1000.0]);

    // lengths are scaled by the unit, scale factors are not
    let mut value = document(json!([{ "type": "scale", "scale": [1, 2, 3] }]));
    value["unit"] = json!("nm");
    assert_eq!(read(&value).apply([1.0; 3]), [1.0, 2.0, 3.0]);
}

#[test]
fn what_is_wrong_with_a_document_is_one_sentence() {
    let folder = Folder::new();
    let step = |value: Value| document(json!([{ "type": "identity" }, value]));
    let mut unclosed = with("axes", json!(["z", "y", "x"])).to_string();
    unclosed.pop();
    let mut sentences: Vec<String> = [
        with("direction", json!("moving-to-fixed")),
        with("direction", json!("backwards")),
        without("direction"),
        without("axes"),
        with("axes", json!(["y", "x"])),
        with("axes", json!(["z", "x", "y"])),
        without("unit"),
        with("unit", json!("pixel")),
        with("type", json!("mapAxis")),
        without("transformations"),
        json!({ "receipt": 1, "version": 2 }),
        step(json!(7)),
        step(json!({ "type": "translation" })),
        step(json!({ "type": "translation", "translation": [1, 2] })),
        step(json!({ "type": "scale", "scale": [1, 2, null] })),
        step(json!({ "type": "scale", "scale": [1, 0, 1] })),
        step(json!({ "type": "rotation", "rotation": [[1, 0, 0], [0, 2, 0], [0, 0, 1]] })),
        step(json!({ "type": "affine", "affine": [[1, 0, 3], [0, 1, 4]] })),
        step(json!({ "type": "affine", "affine": [[1, 0, 0, 0], [0, 1, 0, "a"], [0, 0, 1, 0]] })),
        step(json!({ "type": "affine", "affine": [[1, 2, 3, 0], [2, 4, 6, 0], [0, 0, 1, 0]] })),
        step(json!({ "type": "affine", "affine":
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [5, 6, 7, 1]] })),
        step(json!({ "type": "displacements" })),
        step(json!({ "type": "displacements", "path": 3 })),
        step(json!({ "type": "identity", "direction": "moving-to-fixed" })),
        step(json!({ "type": "identity", "unit": "parsec" })),
    ]
    .iter()
    .map(|value| folder.refusal(value.to_string()))
    .collect();
    sentences.push(folder.refusal(unclosed));
    sentences.push(folder.refusal(
        "{\n\"type\": \"translation\", \"direction\": \"fixed-to-moving\",\n\"translation\": [1, NaN, 3]}",
    ));
    sentences.push(folder.refusal("{\"translation\": [1, -Infinity, 3]}"));
    sentences.push(folder.refusal("{\"translation\": [1, 1e999, 3]}"));
    insta::assert_snapshot!(sentences.join("\n"));
}

#[test]
fn what_is_wrong_with_a_text_or_a_file_is_one_sentence() {
    let folder = Folder::new();
    let mut sentences: Vec<String> = [
        &b""[..],
        b"1 0 0 0\n0 1 0 0\n",
        b"1 0 0 0\n0 1 0\n",
        b"1 0 0 0\n0 1 0 0\n0 0 1 0\n3 4 5 1\n",
        b"1 0 0 0\n0 1 nan 0\n0 0 1 0\n",
        b"1 0 0 0\n0 0 0 0\n0 0 1 0\n",
        b"z_um,y_um,x_um\n1,2,3\n",
        b"#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\n",
        b"\x93NUMPY\x01\0v\0",
        b"II*\0....",
    ]
    .iter()
    .map(|text| folder.refusal(text))
    .collect();
    let missing = read_chain(&[folder.path("none.json").display().to_string()]);
    sentences.push(folder.shown(&missing.err().unwrap()));
    insta::assert_snapshot!(sentences.join("\n"));
}

#[test]
fn texts_of_other_hands_are_read() {
    let want = [[1.0, 0.0, 0.5, 10.0], [0.0, 2.0, 0.0, -20.0], [0.0, 0.0, 3.0, 0.25]];
    for text in [
        "1 0 0.5 10\n0 2 0 -20\n0 0 3 0.25\n0 0 0 1\n",
        "# made by hand\n1.0e+00,0,5e-1,10 # first\n\n0,2,0,-20\n0,0,3,.25\n",
        "[[  1.   0.   0.5  10. ]\n [  0.   2.   0.  -20. ]\n [  0.   0.   3.   0.25]]",
        "\t1;0;0.5;10\r\n0;2;0;-20\r\n0;0;3;0.25\r\n0;0;0;1\r\n",
    ] {
        let folder = Folder::new();
        let map = read_affine(&[folder.put("m.txt", text)]).unwrap();
        assert_eq!(map.rows(), want, "{text}");
    }
}

#[test]
fn a_text_is_written_as_numpy_writes_it() {
    let folder = Folder::new();
    let map =
        Affine::from_rows([[0.1, 0.0, 0.0, -81.25], [0.0, 1.0, 0.0, 2e-5], [0.5, 0.0, 1.0, 3.0]]);
    write_matrix_text(&folder.path("m.txt"), &map, AxisOrder::Zyx).unwrap();
    insta::assert_snapshot!(std::fs::read_to_string(folder.path("m.txt")).unwrap());
    write_matrix_text(&folder.path("m.txt"), &map, AxisOrder::Xyz).unwrap();
    let text = std::fs::read_to_string(folder.path("m.txt")).unwrap();
    assert!(text.starts_with("1.000000000000000000e+00 0.000000000000000000e+00 5.0000"), "{text}");
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_tutorial_matrix_in_x_y_z_maps_as_its_transpose_in_space() {
    let path =
        crate::golden::shared("reference/bigstream/tutorial_global_2021/global_affine_xyz.txt");
    let map = read_matrix_text(&path, AxisOrder::Xyz).unwrap();
    let offset = map.offset();
    assert!(
        (offset[2] + 81.259_040_74).abs() < 1e-8 && (offset[0] + 0.242_373_193_968).abs() < 1e-9
    );
    assert_eq!(map.rows()[0][2], 0.011_932_124_882_7);
}

#[test]
fn a_chain_in_the_other_direction_is_read_only_to_be_inverted() {
    let folder = Folder::new();
    let mut value = document(json!([
        { "type": "scale", "scale": [2, 2, 2] },
        { "type": "translation", "translation": [1, 2, 3] },
    ]));
    value["direction"] = json!("moving-to-fixed");
    let location = folder.put("back.json", value.to_string());
    let steps = read_document(Path::new(&location), Direction::MovingToFixed).unwrap();
    let map = steps.iter().fold(Affine::IDENTITY, |sum, step| match step {
        Step::Affine(map) => sum.then(map),
        _ => panic!("no matrix"),
    });
    assert_eq!(map.apply([3.0, 4.0, 5.0]), [1.0; 3]);
}

#[test]
fn what_cannot_be_used_is_never_written() {
    let folder = Folder::new();
    let path = folder.path("chain.json");
    let flat = Affine::from_rows([[0.0; 4]; 3]);
    let lost = Affine::translation([0.0, f64::NAN, 0.0]);
    for map in [flat, lost] {
        assert!(write_chain(&path, &Chain::affine(map)).is_err());
        assert!(write_matrix_text(&path, &map, AxisOrder::Zyx).is_err());
    }
    assert!(!path.exists());
}

fn local_affines() -> LocalAffines {
    LocalAffines {
        domain: Grid::new([10, 20, 30], [2.0, 1.0 / 3.0, 0.5], [0.1, 0.0, -7.0]),
        block: [10, 10, 16],
        overlap: [5.0, 1.25, 4.0],
        affines: (0..4).map(|i| Affine::translation([0.1 * f64::from(i), 0.0, 1e-9])).collect(),
    }
}

#[test]
fn local_affines_come_back_from_disk_and_are_replaced_only_when_asked() {
    let folder = Folder::new();
    let location = folder.path("local.zarr").display().to_string();
    let maps = local_affines();
    let extra = json!({ "made_by": "a test" }).as_object().cloned().unwrap();
    write_local_affines(&location, &maps, extra.clone(), Existing::Refuse).unwrap();
    assert_eq!(read_local_affines(&location).unwrap(), maps);
    let refused = write_local_affines(&location, &maps, extra, Existing::Refuse).unwrap_err();
    assert!(refused.to_string().contains("--overwrite"), "{refused}");
    // they are fixed-to-moving, and their inverse would have to be computed
    let refused =
        read_chain_in(std::slice::from_ref(&location), Direction::MovingToFixed).err().unwrap();
    assert!(refused.to_string().contains("invmap"), "{refused}");
    let other = LocalAffines { overlap: [1.0; 3], ..maps };
    write_local_affines(&location, &other, serde_json::Map::new(), Existing::Overwrite).unwrap();
    assert_eq!(read_local_affines(&location).unwrap(), other);

    std::fs::create_dir(folder.path("precious")).unwrap();
    std::fs::write(folder.path("precious/thesis"), "x").unwrap();
    let location = folder.path("precious").display().to_string();
    let refused =
        write_local_affines(&location, &other, serde_json::Map::new(), Existing::Overwrite);
    assert!(refused.is_err() && folder.path("precious/thesis").exists());
}

#[test]
fn a_chain_is_read_from_every_kind_of_location_in_order() {
    let folder = Folder::new();
    let at = |name: &str| folder.path(name).display().to_string();
    write_local_affines(
        &at("local.zarr"),
        &local_affines(),
        serde_json::Map::new(),
        Existing::Refuse,
    )
    .unwrap();
    let grid = Grid::new([4, 4, 4], [10.0; 3], [0.0; 3]);
    let field = FieldOutput::create(&at("field.zarr"), &grid, [4; 3], Existing::Refuse).unwrap();
    field.write(&grid.bounds(), &vec![[1.0f32, 2.0, 3.0]; 64]).unwrap();
    let text = folder.put("shift.txt", "1 0 0 5\n0 1 0 0\n0 0 1 0\n");
    let steps = [Step::Field(at("field.zarr")), Step::LocalAffines(at("local.zarr"))];
    write_document(&folder.path("chain.json"), &steps).unwrap();
    let read = |locations: &[String]| {
        let chain = read_chain(locations).unwrap();
        let kinds = chain.steps.iter().map(|step| match step {
            Transform::Affine(_) => 'a',
            Transform::LocalAffines(_) => 'l',
            Transform::Field(_) => 'f',
        });
        let kinds: String = kinds.collect();
        let (local, _) = chain.localise([[1.0; 3], [2.0; 3]]).unwrap();
        (kinds, local.apply([1.0; 3]))
    };
    let (kinds, p) = read(&[text, at("chain.json")]);
    assert!(kinds == "afl" && (p[1] - 3.0).abs() < 1e-12, "{kinds} {p:?}");
    let (kinds, q) = read(&[at("field.zarr"), at("local.zarr")]);
    assert!(kinds == "fl" && (q[1] - 3.0).abs() < 1e-12, "{kinds} {q:?}");
    // the text adds 5 micrometres along z to p alone; the local affines add 0 to 0.3 to p and to q
    assert!((4.8..5.4).contains(&(p[0] - q[0])), "{p:?} {q:?}");
    let refused = read_affine(&[at("chain.json")]).unwrap_err().to_string();
    assert!(refused.contains("one matrix is wanted"), "{refused}");
}

#[test]
fn a_folder_that_is_no_transform_is_named() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("empty")).unwrap();
    let refused = read_chain(&[folder.path("empty").display().to_string()]).err().unwrap();
    assert!(refused.to_string().contains("empty"), "{refused}");
}
