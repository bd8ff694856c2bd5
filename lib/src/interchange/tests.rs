use std::path::{Path, PathBuf};

use super::*;
use crate::geom::{Affine, Grid};
use crate::transform::{self, Step};
use crate::volume::{Existing, FieldOutput, Format};

const ROWS: [[f64; 4]; 3] =
    [[1.0, 0.1, 0.0, -81.25], [0.0, 0.9, 1.0 / 3.0, 2.0], [0.02, 0.0, 1.1, 1e-9]];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn turn(from: &str, axes: Option<AxisOrder>, to: &str, target: TargetFormat) -> Result<(), Error> {
    let reading = Reading { axes, ..Reading::default() };
    transform(from, &reading, to, target, None, &Context::default())
}

#[test]
fn a_matrix_goes_through_every_format_and_back_bit_for_bit() {
    let folder = Folder::new();
    let map = Affine::from_rows(ROWS);
    let (xyz, json, zyx) = (folder.at("xyz.txt"), folder.at("chain.json"), folder.at("zyx.txt"));
    transform::write_matrix_text(Path::new(&xyz), &map, AxisOrder::Xyz).unwrap();
    turn(&xyz, Some(AxisOrder::Xyz), &json, TargetFormat::Json).unwrap();
    turn(&json, None, &zyx, TargetFormat::Matrix(AxisOrder::Zyx)).unwrap();
    assert_eq!(transform::read_affine(std::slice::from_ref(&json)).unwrap().rows(), ROWS);
    assert_eq!(transform::read_affine(&[zyx]).unwrap().rows(), ROWS);
    let again = folder.at("again.txt");
    turn(&json, None, &again, TargetFormat::Matrix(AxisOrder::Xyz)).unwrap();
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&xyz).unwrap());
}

#[test]
fn the_other_direction_is_inverted_when_asked() {
    let folder = Folder::new();
    let map = Affine::from_rows(ROWS);
    let (forward, back) = (folder.at("forward.txt"), folder.at("back.json"));
    transform::write_matrix_text(Path::new(&forward), &map, AxisOrder::Zyx).unwrap();
    let ctx = Context::default();
    let reading = Reading { invert: true, ..Reading::default() };
    transform(&forward, &reading, &back, TargetFormat::Json, None, &ctx).unwrap();
    let both = map.then(&transform::read_affine(&[back]).unwrap());
    assert!(both.distance(&Affine::IDENTITY, [[0.0; 3], [100.0; 3]]) < 1e-9);
}

#[test]
fn a_document_keeps_its_arrays_wherever_it_is_written() {
    let folder = Folder::new();
    let (from, to) = (folder.path("a/chain.json"), folder.at("chain.json"));
    let grid = Grid::new([2; 3], [1.0; 3], [0.0; 3]);
    FieldOutput::create(&folder.at("a/field.zarr"), &grid, [2; 3], Existing::Refuse).unwrap();
    let steps = [Step::Affine(Affine::from_rows(ROWS)), Step::Field(folder.at("a/field.zarr"))];
    transform::write_document(&from, &steps).unwrap();
    turn(&from.display().to_string(), None, &to, TargetFormat::Json).unwrap();
    assert!(std::fs::read_to_string(&to).unwrap().contains("\"a/field.zarr\""));
    let refused =
        turn(&to, None, &folder.at("m.txt"), TargetFormat::Matrix(AxisOrder::Zyx)).unwrap_err();
    assert!(refused.to_string().contains("which no matrix can say; write it --to json"));
    assert!(!folder.path("m.txt").exists());
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let folder = Folder::new();
    let (text, json) = (folder.at("m.txt"), folder.at("chain.json"));
    transform::write_matrix_text(Path::new(&text), &Affine::from_rows(ROWS), AxisOrder::Zyx)
        .unwrap();
    turn(&text, None, &json, TargetFormat::Json).unwrap();
    let out = folder.at("out");
    for (refusal, words) in [
        (turn(&json, Some(AxisOrder::Xyz), &out, TargetFormat::Json), "leave --from-axes out"),
        (turn(&text, None, &out, TargetFormat::Volume(Format::N5)), "write it --to json"),
        (turn(&text, None, &json, TargetFormat::Json), "--overwrite"),
        (turn(&folder.at("none"), None, &out, TargetFormat::Json), "not found"),
    ] {
        let message = refusal.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    assert!(!folder.path("out").exists());
}

#[test]
fn formats_have_names_and_others_are_refused_with_them() {
    assert_eq!("n5".parse(), Ok(TargetFormat::Volume(Format::N5)));
    assert_eq!("bigstream-xyz".parse(), Ok(TargetFormat::Matrix(AxisOrder::Xyz)));
    assert_eq!(parse_axes("xyz"), Ok(AxisOrder::Xyz));
    assert!(parse_axes("yxz").is_err());
    for (name, target) in TargetFormat::NAMES {
        assert_eq!((name.parse(), target.name()), (Ok(target), name));
    }
    let refused = "minc".parse::<TargetFormat>().unwrap_err();
    assert!(refused.starts_with("'minc' is no format; known are zarr3,"), "{refused}");
}

#[test]
fn a_chain_with_fields_goes_through_ngff_and_back() {
    let folder = Folder::new();
    let grid = Grid::new([3, 4, 5], [4.0, 3.0, 2.0], [1.0, -2.0, 3.0]);
    let field = folder.at("field.zarr");
    let output = FieldOutput::create(&field, &grid, [3, 4, 5], Existing::Refuse).unwrap();
    let vectors: Vec<[f32; 3]> =
        (0..60u16).map(|i| [f32::from(i), -1.5, 0.25 * f32::from(i % 7)]).collect();
    output.write(&grid.bounds(), &vectors).unwrap();
    let chain = folder.at("chain.json");
    let steps =
        [Step::Affine(Affine::from_rows(ROWS)), Step::Field(field.clone()), Step::Field(field)];
    transform::write_document(Path::new(&chain), &steps).unwrap();
    let (ngff, back) = (folder.at("ngff.zarr"), folder.at("back.json"));
    turn(&chain, None, &ngff, TargetFormat::Ngff).unwrap();
    assert_eq!(detect::source_of(&ngff).unwrap(), SourceFormat::Ngff);
    turn(&ngff, None, &back, TargetFormat::Json).unwrap();
    let read = |location: &str| crate::transform::read_chain(&[location.to_owned()]).unwrap();
    let extent = [[-5.0; 3], [15.0; 3]];
    let (one, other) =
        (read(&chain).localise(extent).unwrap().0, read(&back).localise(extent).unwrap().0);
    for p in [[0.0; 3], [2.0, -1.0, 4.0], [9.0, 3.5, 7.0]] {
        assert_eq!(one.apply(p), other.apply(p));
    }
}

#[test]
fn what_is_read_is_never_replaced() {
    let folder = Folder::new();
    let chain = folder.at("chain.json");
    transform::write_document(Path::new(&chain), &[Step::Affine(Affine::from_rows(ROWS))]).unwrap();
    let before = std::fs::read(&chain).unwrap();
    let ctx = Context { existing: Existing::Overwrite, ..Context::default() };
    let refused =
        transform(&chain, &Reading::default(), &chain, TargetFormat::Itk, None, &ctx).unwrap_err();
    assert!(refused.to_string().contains("another name"), "{refused}");
    assert_eq!(std::fs::read(&chain).unwrap(), before);
}
