//! Foreign transforms through the command line: assumptions are reported, unreadable files refused.

use std::path::{Path, PathBuf};

use serde_json::Value;
use voxloom::transform::read_affine;

use crate::faults::refused;
use crate::scene::{Scene, files, program};

/// The path of a file that another tool wrote.
fn data(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/transforms");
    folder.join(name).to_str().unwrap().to_owned()
}

/// An affine in our format, in the scene.
fn chain(scene: &Scene) -> String {
    scene.file(
        "ours.json",
        r#"{"type": "affine", "direction": "fixed-to-moving", "axes": ["z", "y", "x"], "unit": "micrometer",
            "affine": [[1.02, 0.05, -0.01, 4], [0.02, 0.95, 0.1, -7], [-0.03, 0.04, 1.1, 11]]}"#,
    )
}

fn transcode(arguments: &[&str]) -> String {
    let run = program("transcode").args(arguments).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{message}");
    message
}

#[test]
fn what_an_import_assumed_is_said_and_stands_in_the_receipt() {
    let scene = Scene::new();
    for (file, more, words, frame, unit) in [
        (
            "itk_affine.tfm",
            vec![],
            "ITK: fixed-to-moving, x,y,z, LPS, millimetres",
            "LPS",
            "millimetres",
        ),
        ("itk_affine.mat", vec!["--unit", "um"], "ITK or ANTs", "LPS", "micrometres"),
        (
            "greedy.mat",
            vec![],
            "greedy: fixed-to-moving, x,y,z, RAS, millimetres",
            "RAS",
            "millimetres",
        ),
        ("elastix_2.txt", vec!["--frame", "ras"], "elastix", "RAS", "millimetres"),
        ("field.nrrd", vec![], "NRRD", "LPS", "millimetres"),
        ("field.nii.gz", vec![], "NIfTI", "LPS", "millimetres"),
        ("itk_affine.txt", vec!["--invert"], "ITK: moving-to-fixed", "LPS", "millimetres"),
    ] {
        let out = scene.at("chain.json");
        let mut arguments = vec![file, "-o", &out, "--overwrite"];
        let source = data(file);
        arguments[0] = &source;
        arguments.extend(more);
        let message = transcode(&arguments);
        assert!(message.contains(words), "{message}");
        let receipt = std::fs::read_to_string(scene.at("chain.json.receipt.json")).unwrap();
        let receipt: Value = serde_json::from_str(&receipt).unwrap();
        let read = &receipt["results"]["read_as"];
        assert_eq!((&read["frame"], &read["unit"]), (&frame.into(), &unit.into()), "{file}");
        assert_eq!(read["axes"], "x,y,z");
    }
}

#[test]
fn flags_say_otherwise_and_then_the_numbers_differ() {
    let scene = Scene::new();
    let read = |more: &[&str]| {
        let (source, out) = (data("greedy.mat"), scene.at("chain.json"));
        let mut arguments = vec![source.as_str(), "-o", &out, "--overwrite"];
        arguments.extend(more);
        transcode(&arguments);
        read_affine(&[out]).unwrap()
    };
    let (usual, lps, um) = (read(&[]), read(&["--frame", "lps"]), read(&["--unit", "um"]));
    // x and y have the opposite sign: their shifts and the terms that mix them with z change sign
    assert_eq!(usual.rows()[0][1], -lps.rows()[0][1]);
    assert_eq!(usual.rows()[1][2], lps.rows()[1][2]);
    assert_eq!(usual.offset()[1], -lps.offset()[1]);
    assert_eq!(usual.linear(), um.linear());
    assert!((usual.offset()[2] - 1e3 * um.offset()[2]).abs() < 1e-9);
    let back = read(&["--invert"]);
    let both = usual.then(&back);
    assert!(both.offset().iter().all(|v| v.abs() < 1e-8));
}

#[test]
fn a_matrix_survives_every_format_that_holds_one() {
    let scene = Scene::new();
    let ours = chain(&scene);
    let want = read_affine(std::slice::from_ref(&ours)).unwrap();
    let fixed = scene.volume::<u8>("fixed.zarr", [10, 12, 14], |_| 0);
    for (target, name) in [
        ("itk", "t.tfm"),
        ("ants", "t.mat"),
        ("greedy", "greedy.mat"),
        ("elastix", "elastix.txt"),
        ("bigstream-zyx", "zyx.txt"),
        ("ngff", "ngff.zarr"),
    ] {
        let (there, back) = (scene.at(name), scene.at(&format!("{name}.json")));
        transcode(
            &[&ours, "--to", target, "-o", &there, "--onto", &fixed]
                [..if target == "elastix" { 7 } else { 5 }],
        );
        transcode(&[&there, "-o", &back]);
        let got = read_affine(&[back]).unwrap();
        let off = want.distance(&got, [[0.0; 3], [100.0; 3]]);
        assert!(off < 1e-9, "{target}: {off}");
    }
    let landmarks = scene.at("landmarks.csv");
    transcode(&[&ours, "--to", "bigwarp", "-o", &landmarks, "--onto", &fixed]);
    let back = scene.at("back.json");
    transcode(&[&landmarks, "--model", "affine", "-o", &back]);
    let off = want.distance(&read_affine(&[back]).unwrap(), [[0.0; 3], [15.0; 3]]);
    assert!(off < 1e-9, "{off}");
}

#[test]
fn another_unit_is_written_where_it_is_asked_for() {
    let scene = Scene::new();
    let (ours, out) = (chain(&scene), scene.at("t.tfm"));
    for (unit, shift) in [("mm", "0.011 -0.007 0.004"), ("um", "11 -7 4")] {
        transcode(&[&ours, "--to", "itk", "--to-unit", unit, "-o", &out, "--overwrite"]);
        let text = std::fs::read_to_string(&out).unwrap();
        let line = text.lines().find(|l| l.starts_with("Parameters:")).unwrap();
        let numbers: Vec<f64> = line.split(' ').rev().take(3).map(|w| w.parse().unwrap()).collect();
        let want: Vec<f64> = shift.split(' ').rev().map(|w| w.parse().unwrap()).collect();
        assert!(numbers.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{line}");
    }
}

#[test]
fn what_no_transform_can_be_read_from_is_refused_in_its_own_words() {
    let scene = Scene::new();
    let out = scene.at("out.json");
    let head = "#Insight Transform File V1.0\n";
    let wrong = |name: &str, text: &str| scene.file(name, text);
    let affine = "Transform: AffineTransform_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n";
    std::fs::write(scene.at("five.mat"), b"MATLAB 5.0 MAT-file, Platform: GLNXA64").unwrap();
    std::fs::write(scene.at("t.h5"), b"\x89HDF\r\n\x1a\n").unwrap();
    let whole = std::fs::read(data("itk_affine.mat")).unwrap();
    std::fs::write(scene.at("cut.mat"), &whole[..120]).unwrap();
    let nifti = std::fs::read(data("field.nii")).unwrap();
    let mut scalar = nifti.clone();
    scalar[50..52].copy_from_slice(&1i16.to_le_bytes());
    std::fs::write(scene.at("scalar.nii"), scalar).unwrap();
    let mut intent = nifti.clone();
    intent[68..70].copy_from_slice(&0i16.to_le_bytes());
    std::fs::write(scene.at("intent.nii"), intent).unwrap();
    std::fs::write(scene.at("short.nii"), &nifti[..1000]).unwrap();
    let cases: Vec<(String, &[&str])> = vec![
        (
            wrong("two.tfm", &format!("{head}{affine}{affine}")),
            &["2 transforms", "CompositeTransform"],
        ),
        (
            wrong(
                "odd.tfm",
                &format!("{head}Transform: GaussianTransform_double_3_3\nParameters: 1\n"),
            ),
            &["not known"],
        ),
        (
            wrong("few.tfm", &format!("{head}{}", affine.replace(" 0 0 0\nF", "\nF"))),
            &["9 parameters", "wanted 12"],
        ),
        (
            wrong("flat.tfm", &format!("{head}{}", affine.replace(": 1 0 0 0 1", ": 1 0 0 1 0"))),
            &["singular"],
        ),
        (
            wrong("word.tfm", &format!("{head}{}", affine.replace("0 0 1", "0 0 one"))),
            &["line 3", "'one'"],
        ),
        (
            wrong(
                "lost.txt",
                "(Transform \"TranslationTransform\")\n(FixedImageDimension 3)\n(TransformParameters 1 2 3)\n(InitialTransformParameterFileName \"gone.txt\")\n",
            ),
            &["gone.txt", "beside"],
        ),
        (
            wrong(
                "cyclic.txt",
                "(Transform \"WeightedCombinationTransform\")\n(FixedImageDimension 3)\n(TransformParameters 1)\n",
            ),
            &["WeightedCombination"],
        ),
        (scene.at("five.mat"), &["level 4"]),
        (scene.at("t.h5"), &["HDF5 that cannot be read"]),
        (scene.at("cut.mat"), &["matrix 1 is cut off"]),
        (scene.at("scalar.nii"), &["dimensions", "x, y, z, 1, 3"]),
        (scene.at("intent.nii"), &["intent 0", "--frame"]),
        (scene.at("short.nii"), &["cut off", "1000 bytes of 4384"]),
        (
            wrong(
                "text.nrrd",
                "NRRD0004\ntype: float\ndimension: 4\nsizes: 3 2 2 2\nkinds: vector domain domain domain\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\nencoding: zstd\n\n1 2 3\n",
            ),
            &["'zstd'", "raw, gzip, bzip2, ascii and hex"],
        ),
        (
            wrong(
                "scalar.nrrd",
                "NRRD0004\ntype: float\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n",
            ),
            &["no axis of vectors"],
        ),
        (
            wrong(
                "row.csv",
                "\"Pt-0\",\"true\",\"1\",\"2\",\"3\",\"4\"\n\"Pt-1\",\"true\",\"1\",\"2\",\"x\",\"4\"\n",
            ),
            &["row 2", "'x'"],
        ),
        (
            wrong(
                "scene.json",
                r#"{"ome": {"scene": {"coordinateTransformations": [{"type": "affine", "input": {"name": "a"}, "output": {"name": "b"}, "affine": []}]}}}"#,
            ),
            &["no coordinate system 'a'"],
        ),
    ];
    for (source, words) in cases {
        refused(&scene, "transcode", &[&source, "-o", &out], 1, words);
    }
}

#[test]
fn flags_that_a_format_has_no_use_for_are_refused() {
    let scene = Scene::new();
    let (ours, out) = (chain(&scene), scene.at("out"));
    let landmarks = data("bigwarp_3d.landmarks.csv");
    let cases: &[(&str, &[&str], &[&str])] = &[
        (&ours, &["--to", "json", "--unit", "mm"], &["leave --unit out"]),
        (&ours, &["--to", "json", "--to-unit", "mm"], &["leave --to-unit out"]),
        (&ours, &["--to", "itk", "--frame", "ras"], &["leave --frame out"]),
        (&landmarks, &["--to", "json", "--frame", "ras"], &["leave --frame out"]),
        (&ours, &["--to", "itk", "--model", "affine"], &["no landmarks"]),
        (&landmarks, &["--to", "json"], &["--onto"]),
        (&landmarks, &["--to", "itk"], &["no matrix can say"]),
        (&ours, &["--to", "elastix"], &["--onto"]),
        (&ours, &["--to", "bigwarp"], &["--onto"]),
        (&ours, &["--to", "zarr3", "--from", "json"], &["is a transform"]),
    ];
    for (source, more, words) in cases {
        let mut arguments = vec![*source, "-o", &out];
        arguments.extend(*more);
        refused(&scene, "transcode", &arguments, 1, words);
    }
    refused(
        &scene,
        "transcode",
        &[&ours, "--to", "itk", "-o", &out, "--unit", "inch"],
        2,
        &["inch"],
    );
    let turned = data("field_turned.nrrd");
    let words = ["turned against ours", "--to json"];
    refused(&scene, "transcode", &[&turned, "--to", "field", "-o", &out], 1, &words);
}

#[test]
fn other_programs_point_to_transcode() {
    let scene = Scene::new();
    let moving = scene.volume::<u8>("moving.zarr", [4; 3], |_| 1);
    for file in [
        "itk_affine.tfm",
        "itk_affine.mat",
        "elastix_1.txt",
        "field.nii",
        "field.nii.gz",
        "field.nrrd",
    ] {
        let (source, out) = (data(file), scene.at("out.zarr"));
        let arguments = [&moving, "--onto", &moving, "--transform", &source, "-o", &out];
        refused(&scene, "apply-transform", &arguments, 1, &["transcode FILE -o chain.json"]);
    }
}

#[test]
fn an_existing_output_is_not_touched_and_a_plan_makes_nothing() {
    let scene = Scene::new();
    let (field, out) = (data("field.nrrd"), scene.at("t.json"));
    let run = program("transcode").args([&field, "-o", &out, "--plan"]).assert().success();
    let plan: Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    assert_eq!(plan["tasks"], 1);
    assert!(files(Path::new(&scene.at(""))).is_empty());
    transcode(&[&field, "-o", &out]);
    assert!(Path::new(&scene.at("t.field.zarr/zarr.json")).exists());
    refused(&scene, "transcode", &[&field, "-o", &out], 1, &["--overwrite"]);
    transcode(&[&field, "-o", &out, "--overwrite"]);
}

/// The arguments to sample a spline on 96 x 96 x 96 voxels.
fn sampled(out: &str) -> Vec<String> {
    [&data("bigwarp_3d.landmarks.csv"), "--to", "field", "-o", out]
        .into_iter()
        .chain([
            "--shape",
            "96,96,96",
            "--out-spacing",
            "2,2,2",
            "--block-size",
            "64,64,64",
            "--threads",
            "1",
        ])
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_sampled_spline_is_the_same_for_any_threads_parts_and_blocks() {
    let scene = Scene::new();
    let whole = scene.at("whole.zarr");
    program("transcode").args(sampled(&whole)).assert().success();
    let chunks = |location: &str| -> Vec<Vec<u8>> {
        let all = files(Path::new(&format!("{location}/c")));
        all.into_iter().map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(chunks(&whole).len(), 8);
    let grid = ["--shape", "96,96,96", "--out-spacing", "2,2,2"];
    let source = data("bigwarp_3d.landmarks.csv");
    let two = scene.at("two.zarr");
    program("transcode")
        .args([&source, "--to", "field", "-o", &two, "--threads", "2"])
        .args(grid)
        .assert()
        .success();
    assert!(chunks(&whole) == chunks(&two));
    let parts = scene.at("parts.zarr");
    for flag in ["--part=2/3", "--part=1/3", "--part=3/3", "--finish"] {
        let mut arguments = sampled(&parts);
        arguments.push(flag.to_owned());
        program("transcode").args(arguments).assert().success();
    }
    assert!(chunks(&whole) == chunks(&parts));
}

#[test]
fn what_was_made_is_applied_by_the_programs() {
    let scene = Scene::new();
    // landmarks that shift everything by 3 voxels along x and 1 along z
    let mut landmarks = String::new();
    for (i, [x, y, z]) in [[0, 0, 0], [30, 0, 0], [0, 30, 0], [0, 0, 30], [30, 30, 30], [30, 5, 9]]
        .into_iter()
        .enumerate()
    {
        landmarks += &format!(
            "\"Pt-{i}\",\"true\",\"{}\",\"{y}\",\"{}\",\"{x}\",\"{y}\",\"{z}\"\n",
            x + 3,
            z + 1
        );
    }
    let landmarks = scene.file("landmarks.csv", &landmarks);
    let moving =
        scene.volume::<u16>("moving.zarr", [32; 3], |[z, y, x]| (z * 1024 + y * 32 + x) as u16);
    let (chain, out) = (scene.at("tps.json"), scene.at("out.zarr"));
    transcode(&[&landmarks, "-o", &chain, "--onto", &moving]);
    program("apply-transform")
        .args([&moving, "--onto", &moving, "--transform", &chain, "-o", &out])
        .assert()
        .success();
    let volume = voxloom::volume::Volume::open(&out, &voxloom::volume::Select::default()).unwrap();
    let voxels = volume.read::<u16>(&voxloom::geom::Box3::new([5, 6, 7], [6, 7, 8])).unwrap();
    assert_eq!(voxels, [6 * 1024 + 6 * 32 + 10]);
}
