//! Tests of projects.

use std::fs;

use super::*;
use crate::volume::{Codec, Dtype, Existing, Format, Output, Spec};

/// Writes an image without a voxel size.
fn image(folder: &Path, name: &str, shape: [usize; 2]) {
    let grid = Grid::plane(shape, [1.0; 2], [0.0; 2]);
    let spec = Spec {
        grid,
        dtype: Dtype::U8,
        chunk: [1, shape[0], shape[1]],
        shard: None,
        codec: Codec::Raw,
        format: Format::Npy,
    };
    let at = folder.join(name).display().to_string();
    let output = Output::create(&at, &spec, Existing::Refuse).unwrap();
    output.write(&grid.bounds(), &vec![7_u8; shape[0] * shape[1]]).unwrap();
}

fn open(folder: &Path, name: &str, text: &str) -> Result<Project, Error> {
    fs::write(folder.join(name), text).unwrap();
    let spacing = Some([f64::NAN, 0.5, 0.25]);
    let select = Select { spacing, ..Select::default() };
    Project::open(&folder.join(name).display().to_string(), &select)
}

#[test]
fn tables_and_positions_of_other_programs_list_the_same_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder, "a.npy", [30, 40]);
    image(folder, "b.npy", [30, 40]);
    let forms = [
        ("t.csv", "z,location,offset_y,offset_x\n0,a.npy,0,0\n0,b.npy,-1.5,36\n"),
        ("t.txt", "# Define\ndim = 2\n\na.npy; ; (0.0, 0.0)\nb.npy; ; (36, -1.5)\n"),
        ("l.txt", "a.npy 0 0 0\nb.npy 36 -1.5 0\n"),
    ];
    for (name, text) in forms {
        let project = open(folder, name, text).unwrap();
        let positions: Vec<_> = project.tiles.iter().map(|tile| tile.position).collect();
        assert_eq!(positions, [[0.0, 0.0], [-1.5, 36.0]], "{name}");
        assert_eq!(project.spacing, [0.5, 0.5, 0.25]);
        let map = project.tiles[1].chain("x").unwrap().as_affine().unwrap();
        assert_eq!(map.apply([0.0, -0.75, 9.0]), [0.0; 3]);
        assert!(project.tiles.iter().all(|tile| tile.shape == [30, 40]));
    }
}

#[test]
fn a_project_comes_back_from_its_document() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder, "a.npy", [30, 40]);
    image(folder, "m.npy", [30, 40]);
    let table = "# spacing: 40,8,8 nm\nz,location,mask,offset_y,offset_x\n3,a.npy,m.npy,2,1\n";
    fs::write(folder.join("t.csv"), table).unwrap();
    let location = folder.join("t.csv").display().to_string();
    let mut project = Project::open(&location, &Select::default()).unwrap();
    assert_eq!(project.spacing, [0.04, 0.008, 0.008]);
    project.tiles[0].map.push(Step::Affine(Affine::translation([0.0, 0.1, -0.3])));
    let path = folder.join("p.json");
    project.write(&path).unwrap();
    let back = Project::open(&path.display().to_string(), &Select::default()).unwrap();
    let wanted = Project { location: back.location.clone(), ..project };
    assert_eq!(back, wanted);
    let image = back.image(&back.tiles[0], None).unwrap();
    assert_eq!(image.read(&Box3::of_shape([1, 1, 2])).unwrap(), [7.0, 7.0]);
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder, "a.npy", [30, 40]);
    let head = "z,location,offset_y,offset_x\n";
    for (text, wanted) in [
        (format!("{head}0,a.npy,x,0\n"), "wanted a number of pixels"),
        (format!("{head}0,none.npy,0,0\n"), "line 2"),
        (head.to_owned(), "lists no section"),
        ("a.npy; ; (0.0)\n".to_owned(), "line 1 is 'a.npy; ; (0.0)'"),
        ("dim = 3\n".to_owned(), "dim = 3"),
        ("a.npy 1 2\n".to_owned(), "line 1"),
        (String::new(), "lists no tile"),
        ("{\"type\": \"sequence\"}".to_owned(), "its \"type\" is \"sequence\""),
        ("{\"type\": \"voxloom:tiles\"}".to_owned(), "has the version none"),
        ("{\"type\": \"voxloom:tiles\", \"version\": 1}".to_owned(), "\"spacing\""),
        (
            "{\"type\": \"voxloom:tiles\", \"version\": 1, \"spacing\": [null, 1, 1], \"tiles\": [{}]}"
                .to_owned(),
            "tiles[0] has no",
        ),
        ("{".to_owned(), "not valid JSON"),
    ] {
        let error = open(folder, "t", &text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let error = Project::open(&folder.display().to_string(), &Select::default()).unwrap_err();
    assert!(error.to_string().contains("is a folder"), "{error}");
}
