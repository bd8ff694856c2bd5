use super::super::world::World;
use super::*;
use crate::geom::Grid;

const WORLD: World = World { frame: AnatomicalFrame::Lps, micrometres: 1e3 };

fn read_text(text: &str) -> Result<FlatHeader, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nrrd");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("a.raw"), b"").unwrap();
    read(&path).map_err(|error| error.to_string())
}

const HEAD: &str = "NRRD0005\n# a remark\ntype: double\ndimension: 4\nsizes: 3 6 5 4\n\
                    space: left-posterior-superior\nkinds: vector domain domain domain\n\
                    space directions: none (1,0,0) (0,2,0) (0,0,3)\nspace origin: (9,-8,7)\n\
                    endian: big\nencoding: raw\nkey:=value: of a user\n\n";

#[test]
fn a_head_is_read_with_its_vectors_first_or_last() {
    let want = Grid::new([4, 5, 6], [3000.0, 2000.0, 1000.0], [7000.0, -8000.0, 9000.0]);
    let head = read_text(HEAD).unwrap();
    assert_eq!(head.placement.grid(WORLD), (want, None));
    assert_eq!((head.dtype, head.order, head.planar), (Dtype::F64, ByteOrder::Big, false));
    assert_eq!(head.offset, HEAD.len() as u64);
    let last = HEAD
        .replace("3 6 5 4", "6 5 4 3")
        .replace("vector domain domain domain", "domain domain domain vector")
        .replace("none (1,0,0) (0,2,0) (0,0,3)", "(1,0,0) (0,2,0) (0,0,3) none");
    let head = read_text(&last).unwrap();
    assert_eq!((head.placement.grid(WORLD), head.planar), ((want, None), true));
}

#[test]
fn plain_spacings_units_and_detached_data_are_read() {
    let text = HEAD
        .replace("space directions: none (1,0,0) (0,2,0) (0,0,3)", "spacings: nan 1 2 3")
        .replace(
            "endian: big",
            "endian: little\nspace units: \"um\" \"um\" \"um\"\ndata file: a.raw",
        );
    let head = read_text(&text).unwrap();
    assert_eq!((head.micrometres, head.offset), (Ok(Some(1.0)), 0));
    assert!(head.file.ends_with("a.raw"));
    let lost = text.replace("a.raw", "b.raw");
    assert!(read_text(&lost).unwrap_err().contains("b.raw, which is not beside it"));
}

#[test]
fn what_cannot_be_read_of_a_head_is_said() {
    for (from, to, words) in [
        ("double", "block", "'block'"),
        ("raw", "zstd", "'zstd'"),
        ("big", "middle", "'middle'"),
        (
            "key:=value: of a user",
            "displacement field type:=modeling",
            "modeling displacement field of Slicer",
        ),
        ("key:=value: of a user", "displacement field type:=other", "'other'"),
        ("left-posterior-superior", "scanner-xyz", "scanner-xyz"),
        ("endian", "byte skip: -4\nendian", "byteskip -4"),
        ("endian", "byte skip: -1\nendian", "byteskip -1"),
        ("endian", "line skip: x\nendian", "lineskip 'x'"),
        ("6 5 4", "2000000000 2000000000 2000000000", "cannot be"),
        ("6 5 4", "6 5 -4", "'-4'"),
        ("3 6 5 4", "3 6 5", "sizes"),
        ("3 6 5 4", "5 6 5 4", "5 components"),
        ("(0,2,0)", "(0,2", "no list of vectors"),
        ("(0,2,0)", "(0,nan,0)", "no list of vectors"),
        ("endian", "measurement frame: (0,1,0) (1,0,0) (0,0,1)\nendian", "measurement frame"),
    ] {
        let refusal = read_text(&HEAD.replace(from, to)).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn what_is_assumed_or_not_known_is_noted() {
    assert!(read_text(HEAD).unwrap().notes.is_empty());
    for (from, to, words) in [
        ("# a remark", "weather: fine", "the fields weather"),
        ("space: left-posterior-superior\n", "", "does not name its space"),
        ("left-posterior-superior", "LAS", "taken as LPS"),
        ("space origin: (9,-8,7)\n", "", "first sample"),
        ("endian: big\n", "", "byte order"),
    ] {
        let notes = read_text(&HEAD.replace(from, to)).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains(words), "{notes:?}");
    }
}

#[test]
fn a_space_with_y_the_other_way_is_turned() {
    let head = read_text(&HEAD.replace("left-posterior-superior", "LAS")).unwrap();
    let position = head.placement.index_to_world(WORLD).apply([1.0, 1.0, 1.0]);
    assert_eq!(position, [10_000.0, 6_000.0, 10_000.0]);
}

#[test]
fn data_begin_after_the_lines_and_bytes_that_are_skipped() {
    let skipped = HEAD.replace("endian", "line skip: 2\nbyte skip: 3\nendian");
    let head = read_text(&format!("{skipped}one\ntwo\nabc")).unwrap();
    assert_eq!(head.offset, skipped.len() as u64 + 11);
    let packed = HEAD.replace("raw", "gzip").replace("endian", "byte skip: 3\nendian");
    let head = read_text(&packed).unwrap();
    assert_eq!((head.offset, head.packing), (3, Some((Packing::Gzip, packed.len() as u64))));
    let end = HEAD.replace("endian", "byte skip: -1\nendian");
    let text = format!("{end}{}", "x".repeat(6 * 5 * 4 * 3 * 8 + 7));
    assert_eq!(read_text(&text).unwrap().offset, end.len() as u64 + 7);
}
