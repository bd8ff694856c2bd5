//! A test that the page of a stack shows what is in the inputs.

use serde_json::{Value, json};

use super::{StackRequest, write_stack};
use crate::blocks::Context;
use crate::geom::Grid;
use crate::metric::{hash, unit};
use crate::report::Error;
use crate::transform::{Step, write_document};
use crate::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec};

const SHAPE: [usize; 3] = [5, 48, 64];

/// A stack of one pattern that is shifted along x by `shift` in each further section; section 3 is
/// another pattern.
fn stack(location: &str, shift: usize) {
    let grid = Grid::new(SHAPE, [0.5, 0.1, 0.1], [0.0; 3]);
    let (dtype, chunk) = (Dtype::U8, [1, 48, 64]);
    let spec = Spec { grid, dtype, chunk, shard: None, codec: Codec::Raw, format: Format::Zarr3 };
    let output = Output::create(location, &spec, Existing::Refuse).unwrap();
    let value = |i: usize| {
        let [z, y, x] = [i / (48 * 64), i / 64 % 48, i % 64];
        let seed = u64::from(z == 3);
        (200.0 * unit(hash(seed, (y / 3 * 1000 + (x + z * shift) / 3) as u64), 0)) as u8 + 20
    };
    let voxels: Vec<u8> = (0..SHAPE.iter().product()).map(value).collect();
    output.write(&grid.bounds(), &voxels).unwrap();
}

#[test]
fn the_page_of_a_stack_shows_what_is_in_its_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    stack(&at("before.zarr"), 9);
    stack(&at("after.zarr"), 0);
    let shift = crate::geom::Affine::translation([0.0, 0.2, -0.3]);
    write_document(at("map.json").as_ref(), &[Step::Affine(shift)]).unwrap();
    let pair = |section: u64, matched: u64, rms: f64| {
        json!({ "section": section, "distance": 1, "nodes": 100, "matched": matched, "outliers": 10,
            "rms_um": rms, "held_out_rms_um": 0.0 })
    };
    let pairs = [pair(1, 90, 0.03), pair(2, 80, 0.04), pair(3, 0, 0.0), pair(4, 60, 0.05)];
    let relax = json!({ "program": "relax", "results": { "pairs": pairs, "not_placed": "3" } });
    std::fs::write(at("relax.json"), relax.to_string()).unwrap();
    let request = |aligned: &str| StackRequest {
        stack: at("before.zarr"),
        select: Select::default(),
        aligned: at(aligned),
        transform: vec![at("map.json")],
        receipts: vec![at("relax.json").into()],
        title: None,
        output: at("page.html").into(),
    };
    write_stack(&request("after.zarr"), &Context::default()).unwrap();
    let numbers: Value =
        serde_json::from_str(&std::fs::read_to_string(at("page.json")).unwrap()).unwrap();
    let number = |z: usize, name: &str| numbers["sections"][z][name].as_f64();
    assert_eq!(number(0, "ncc_after"), None);
    assert!(number(1, "ncc_after").unwrap() > 0.999 && number(1, "ncc_before").unwrap() < 0.3);
    assert!(number(3, "ncc_after").unwrap() < 0.3);
    assert_eq!([number(2, "matched"), number(3, "residual_um")], [Some(0.8), None]);
    let place = &numbers["sections"][2]["place"];
    assert!((place["shift_um"][0].as_f64().unwrap() - 0.2).abs() < 1e-6, "{place}");
    assert!(place["bending_um"].as_f64().unwrap() < 1e-6);
    let page = std::fs::read_to_string(at("page.html")).unwrap();
    for text in [
        "3 follow their neighbours",
        "2 and 3, which agree least after the alignment: before",
        "XZ, after",
        "Shift of the middle of each section, pixels",
        "<td class=\"number\">80 %</td>".replace("80 %", "80.0 %").as_str(),
    ] {
        assert!(page.contains(text), "{text}");
    }
    let again = write_stack(&request("after.zarr"), &Context::default());
    assert!(matches!(again, Err(Error::Blocks(_))), "{again:?}");
}

#[test]
fn stacks_of_other_sections_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    stack(&at("before.zarr"), 9);
    let grid = Grid::new([4, 48, 64], [0.5, 0.1, 0.1], [0.0; 3]);
    let (dtype, chunk) = (Dtype::U8, [1, 48, 64]);
    let spec = Spec { grid, dtype, chunk, shard: None, codec: Codec::Raw, format: Format::Zarr3 };
    Output::create(&at("after.zarr"), &spec, Existing::Refuse).unwrap();
    let request = StackRequest {
        stack: at("before.zarr"),
        select: Select::default(),
        aligned: at("after.zarr"),
        transform: Vec::new(),
        receipts: Vec::new(),
        title: None,
        output: at("page.html").into(),
    };
    let refused = write_stack(&request, &Context::default()).unwrap_err().to_string();
    assert!(refused.contains("has 4 sections") && refused.contains("has 5"), "{refused}");
    assert!(!folder.path().join("page.html").exists());
}
