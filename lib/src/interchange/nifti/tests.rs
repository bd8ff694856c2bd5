use super::super::world::{AnatomicalFrame, World};
use super::write::compose;
use super::*;
use crate::geom::Grid;

const RAS: World = World { frame: AnatomicalFrame::Ras, micrometres: 1e3 };

fn grid() -> Grid {
    Grid::new([4, 5, 6], [3000.0, 2000.0, 1000.0], [7000.0, -8000.0, 9000.0])
}

fn read_bytes(bytes: &[u8]) -> Result<NiftiHeader, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    std::fs::write(&path, bytes).unwrap();
    read(&path).map_err(|error| error.to_string())
}

#[test]
fn a_head_of_ours_is_read_back() {
    let head = read_bytes(&compose(&grid(), 1e3)).unwrap();
    assert_eq!(head.placement.grid(RAS), (grid(), None));
    assert_eq!((head.components, head.dtype, head.offset), (3, Dtype::F32, 352));
    assert_eq!(head.meaning, Ok(Meaning::Displacements(AnatomicalFrame::Lps)));
    assert_eq!((head.micrometres, head.notes), (Some(1e3), vec![]));
}

#[test]
fn a_qform_places_as_the_sform_does_and_neither_is_refused() {
    let mut bytes = compose(&grid(), 1e3);
    bytes[254..256].fill(0);
    let (there, turned) = read_bytes(&bytes).unwrap().placement.grid(RAS);
    assert!(turned.is_none(), "{turned:?}");
    for a in 0..3 {
        assert!((there.origin[a] - grid().origin[a]).abs() < 1e-9);
        assert!((there.spacing[a] - grid().spacing[a]).abs() < 1e-9);
    }
    bytes[252..254].fill(0);
    assert!(read_bytes(&bytes).unwrap_err().contains("where its samples lie"));
}

/// The same header fields in the layout of version 2 (nifti2.h).
fn second_version(bytes: &[u8]) -> Vec<u8> {
    let b = Bytes { data: bytes, order: ByteOrder::Little };
    let mut out = vec![0u8; 544];
    let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
    put(0, &540i32.to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &(b.short(70) as i16).to_le_bytes());
    for i in 0..8 {
        put(16 + 8 * i, &i64::from(b.short(40 + 2 * i)).to_le_bytes());
        put(104 + 8 * i, &b.float(76 + 4 * i).to_le_bytes());
    }
    put(168, &544i64.to_le_bytes());
    put(176, &b.float(112).to_le_bytes());
    put(344, &b.short(252).to_le_bytes());
    put(348, &b.short(254).to_le_bytes());
    for i in 0..6 {
        put(352 + 8 * i, &b.float(256 + 4 * i).to_le_bytes());
    }
    for i in 0..12 {
        put(400 + 8 * i, &b.float(280 + 4 * i).to_le_bytes());
    }
    put(500, &i32::from(bytes[123]).to_le_bytes());
    put(504, &b.short(68).to_le_bytes());
    out
}

#[test]
fn version_2_says_the_same_at_other_places() {
    let head = read_bytes(&second_version(&compose(&grid(), 1e3))).unwrap();
    assert_eq!(head.placement.grid(RAS), (grid(), None));
    assert_eq!((head.components, head.offset), (3, 544));
    assert_eq!(head.meaning, Ok(Meaning::Displacements(AnatomicalFrame::Lps)));
}

#[test]
fn no_damage_to_a_head_makes_a_panic() {
    let whole = compose(&grid(), 1e3);
    for length in 0..whole.len() {
        let _ = read_bytes(&whole[..length]);
    }
    for at in 0..whole.len() {
        for value in [0, 0xff, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = read_bytes(&bytes);
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn what_vectors_mean_is_told_by_their_names_or_not_at_all() {
    let meaning = |code: i16, name: &str, kind: f32| {
        let mut bytes = compose(&grid(), 1e3);
        put(&mut bytes, 68, &code.to_le_bytes());
        put(&mut bytes, 328, name.as_bytes());
        put(&mut bytes, 56, &kind.to_le_bytes());
        let one = read_bytes(&bytes).unwrap().meaning;
        if code == 1007 {
            let mut second = second_version(&bytes);
            put(&mut second, 508, name.as_bytes());
            put(&mut second, 80, &f64::from(kind).to_le_bytes());
            assert_eq!(read_bytes(&second).unwrap().meaning, one);
        }
        one
    };
    assert_eq!(meaning(1007, "NREG_TRANS", 0.0), Ok(Meaning::Positions(AnatomicalFrame::Ras)));
    assert_eq!(meaning(1007, "NREG_TRANS", 1.0), Ok(Meaning::Displacements(AnatomicalFrame::Ras)));
    assert_eq!(meaning(1007, "NREG_TRANS", 2.0), Ok(Meaning::ControlPoints));
    assert_eq!(meaning(1007, "Mapping", 0.0), Ok(Meaning::Positions(AnatomicalFrame::Ras)));
    assert_eq!(meaning(1006, "", 0.0), Ok(Meaning::Displacements(AnatomicalFrame::Ras)));
    for kind in [3.0, 4.0, 5.0, 6.0, 7.0, -1.0, 0.5, f32::NAN] {
        let Err(Doubt::Other(refusal)) = meaning(1007, "NREG_TRANS", kind) else {
            panic!("{kind}")
        };
        assert!(
            refusal.contains("NiftyReg") && refusal.contains("reg_transform -disp"),
            "{refusal}"
        );
    }
    assert!(
        matches!(meaning(2006, "", 0.0), Err(Doubt::Other(refusal)) if refusal.contains("FSL"))
    );
    assert!(
        matches!(meaning(1007, "Flow", 0.0), Err(Doubt::Unsaid(refusal)) if refusal.contains("'Flow'"))
    );
    assert!(
        matches!(meaning(0, "", 0.0), Err(Doubt::Unsaid(refusal)) if refusal.contains("intent 0"))
    );
}

#[test]
fn a_slope_that_is_no_number_does_not_scale_and_another_does() {
    let read = |slope: f32, intercept: f32| {
        let mut bytes = compose(&grid(), 1e3);
        put(&mut bytes, 112, &slope.to_le_bytes());
        put(&mut bytes, 116, &intercept.to_le_bytes());
        read_bytes(&bytes)
    };
    for (slope, intercept, want) in
        [(0.0, 7.0, 1.0), (f32::NAN, f32::NAN, 1.0), (f32::INFINITY, 0.0, 1.0), (2.5, 0.0, 2.5)]
    {
        let head = read(slope, intercept).unwrap();
        assert_eq!(head.slope, want);
        assert_eq!(head.notes.len(), usize::from(!slope.is_finite()));
    }
    for intercept in [1.0, f32::NAN] {
        assert!(read(1.0, intercept).unwrap_err().contains("vectors cannot mean"));
    }
}

#[test]
fn forms_that_differ_and_units_that_are_none_are_noted() {
    let mut bytes = compose(&grid(), 1e3);
    put(&mut bytes, 268, &(-9.5f32).to_le_bytes());
    let head = read_bytes(&bytes).unwrap();
    assert!(head.notes[0].contains("differ by 0.500 samples"), "{:?}", head.notes);
    assert_eq!(head.placement.grid(RAS), (grid(), None));
    bytes[123] = 5;
    let head = read_bytes(&bytes).unwrap();
    assert!(head.micrometres.is_none() && head.notes[1].contains("unit 5"), "{:?}", head.notes);
}

#[test]
fn dimensions_that_no_field_has_are_refused() {
    let read = |dims: &[i16]| {
        let mut bytes = compose(&grid(), 1e3);
        for (i, n) in dims.iter().enumerate() {
            put(&mut bytes, 40 + 2 * i, &n.to_le_bytes());
        }
        read_bytes(&bytes).map(|head| (head.placement.shape, head.components))
    };
    assert_eq!(read(&[4, 6, 5, 4, 3]), Ok(([4, 5, 6], 3)));
    assert_eq!(read(&[5, 6, 5, 1, 1, 2]), Ok(([1, 5, 6], 2)));
    for (dims, words) in [
        (&[5, 6, 5, 4, 2, 3][..], "x, y, z, 1, 3"),
        (&[5, 6, 5, 4, 1, 4], "x, y, z, 1, 3"),
        (&[3, 6, 5, 4], "x, y, z, 1, 3"),
        (&[6, 6, 5, 4, 1, 3, 2], "x, y, z, 1, 3"),
        (&[5, 6, -5, 4, 1, 3], "dimension -5"),
        (&[5, 6, 0, 4, 1, 3], "dimension 0"),
        (&[9, 6, 5, 4, 1, 3], "9 dimensions"),
    ] {
        let refusal = read(dims).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}
