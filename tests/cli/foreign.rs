//! Transforms of other programs are interpreted as these programs define them, or refused with a
//! message that names the kind. Files that hold less than they state are refused before anything is
//! written.

use std::path::Path;

use serde_json::json;
use voxloom::transform::read_chain;

use crate::faults::refused;
use crate::scene::{Scene, files, program};

/// Converts `source` to a chain; returns the images of points, `[z, y, x]` in micrometres.
fn images(scene: &Scene, source: &str, more: &[&str], points: &[[f64; 3]]) -> Vec<[f64; 3]> {
    let out = scene.at("chain.json");
    let run = program("transcode")
        .args([source, "-o", &out, "--overwrite", "-q"])
        .args(more)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let chain = read_chain(&[out]).unwrap();
    let (local, _) = chain.localise([[-50.0; 3], [50.0; 3]]).unwrap();
    points.iter().map(|p| local.apply(*p)).collect()
}

/// Asserts that all of the points move by `shift`.
fn moves_by(scene: &Scene, source: &str, more: &[&str], points: &[[f64; 3]], shift: [f64; 3]) {
    for (p, q) in points.iter().zip(images(scene, source, more, points)) {
        let off = (0..3).map(|a| (q[a] - p[a] - shift[a]).abs()).fold(0.0, f64::max);
        assert!(off < 1e-4, "{source}: {p:?} goes to {q:?}, wanted {shift:?} more");
    }
}

/// A node of the fields below, and a point between nodes.
const POINTS: [[f64; 3]; 2] = [[2.0, 3.0, 4.0], [1.25, 2.5, 3.75]];

/// Shape of the fields below along x, y, z; the nodes are 1 um apart, from 0.
const SHAPE: [usize; 3] = [8, 7, 6];

/// The indices x, y, z of all nodes, x fastest.
fn samples() -> impl Iterator<Item = [usize; 3]> {
    let [nx, ny, nz] = SHAPE;
    (0..nz).flat_map(move |z| (0..ny).flat_map(move |y| (0..nx).map(move |x| [x, y, z])))
}

/// A NIfTI-1 file in millimetres: intent code, name and parameter, the slope, and the vector at
/// each node as a function of the node's position; both in RAS.
fn nifti(intent: (i16, &str, f32), slope: f32, vector: impl Fn([f32; 3]) -> [f32; 3]) -> Vec<u8> {
    let mut head = vec![0u8; 352];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_le_bytes());
    for (i, n) in [5, SHAPE[0], SHAPE[1], SHAPE[2], 1, 3].into_iter().enumerate() {
        put(40 + 2 * i, &(n as i16).to_le_bytes());
    }
    put(56, &intent.2.to_le_bytes());
    put(68, &intent.0.to_le_bytes());
    put(70, &16i16.to_le_bytes());
    put(72, &32i16.to_le_bytes());
    put(108, &352f32.to_le_bytes());
    put(112, &slope.to_le_bytes());
    put(123, &[2]);
    put(254, &1i16.to_le_bytes());
    // our coordinates are LPS: x and y of RAS have the opposite sign
    for (r, c, value) in [(0, 0, -1e-3f32), (1, 1, -1e-3), (2, 2, 1e-3)] {
        put(280 + 16 * r + 4 * c, &value.to_le_bytes());
    }
    put(328, intent.1.as_bytes());
    put(344, b"n+1\0");
    for c in 0..3 {
        for [x, y, z] in samples() {
            let place = [x as f32 * -1e-3, y as f32 * -1e-3, z as f32 * 1e-3];
            head.extend(vector(place)[c].to_le_bytes());
        }
    }
    head
}

#[test]
fn what_niftyreg_and_spm_write_is_what_they_mean() {
    let scene = Scene::new();
    // x + 0.5, y - 0.3, z + 0.2 micrometres in RAS
    let shift = [0.5e-3, -0.3e-3, 0.2e-3];
    let goes = |p: [f32; 3]| std::array::from_fn(|a| p[a] + shift[a]);
    let write = |name: &str, bytes: Vec<u8>| {
        std::fs::write(scene.at(name), bytes).unwrap();
        scene.at(name)
    };
    let positions = [((1007, "NREG_TRANS", 0.0), "def.nii"), ((1007, "Mapping", 0.0), "y_spm.nii")];
    for (intent, name) in positions {
        let file = write(name, nifti(intent, 1.0, goes));
        moves_by(&scene, &file, &[], &POINTS, [0.2, 0.3, -0.5]);
    }
    let file = write("disp.nii", nifti((1007, "NREG_TRANS", 1.0), 1.0, |_| shift));
    moves_by(&scene, &file, &[], &POINTS, [0.2, 0.3, -0.5]);
    // an ITK file: LPS
    let file = write("itk.nii", nifti((1007, "", 0.0), 1.0, |_| shift));
    moves_by(&scene, &file, &[], &POINTS, [0.2, -0.3, 0.5]);
    // a grid of control points is a spline, fully supported from the second to the second-last
    // point
    let file = write("cpp.nii", nifti((1007, "NREG_TRANS", 2.0), 1.0, goes));
    let grid = ["--shape", "4,4,5", "--out-spacing", "1,1,1"];
    moves_by(&scene, &file, &grid, &[[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], [0.2, 0.3, -0.5]);
    let out = scene.at("out.json");
    for (intent, words) in [
        ((1007, "NREG_TRANS", 5.0), &["velocity grid", "NiftyReg", "reg_transform -disp"][..]),
        ((1007, "NREG_TRANS", 3.0), &["velocity field", "reg_transform -disp"]),
        ((2006, "", 0.0), &["FSL", "intent 2006"]),
        ((1007, "Flow", 0.0), &["'Flow'", "--frame"]),
    ] {
        let file = write("other.nii", nifti(intent, 1.0, goes));
        refused(&scene, "transcode", &[&file, "-o", &out], 1, words);
    }
    let words = ["leave --frame out"];
    refused(&scene, "transcode", &[&scene.at("cpp.nii"), "-o", &out, "--frame", "lps"], 1, &words);
}

#[test]
fn a_slope_that_is_no_number_scales_nothing_and_a_field_of_nan_is_no_success() {
    let scene = Scene::new();
    for slope in [f32::NAN, 0.0, f32::INFINITY] {
        std::fs::write(scene.at("a.nii"), nifti((1007, "", 0.0), slope, |_| [1e-3, 2e-3, 3e-3]))
            .unwrap();
        moves_by(&scene, &scene.at("a.nii"), &[], &POINTS, [3.0, 2.0, 1.0]);
    }
    std::fs::write(scene.at("nan.nii"), nifti((1007, "", 0.0), 1.0, |_| [f32::NAN; 3])).unwrap();
    let out = scene.at("nan.json");
    let run = program("transcode").args([&scene.at("nan.nii"), "-o", &out]).output().unwrap();
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(3), "{message}");
    assert!(message.contains("every vector is NaN") && !Path::new(&out).exists(), "{message}");
}

/// A BigWarp field in N5: dimensions `[3, x, y, z]`, the first fastest, big endian.
fn n5_field(scene: &Scene, name: &str, more: &serde_json::Value) -> String {
    let folder = scene.at(&format!("warp.n5/{name}"));
    std::fs::create_dir_all(format!("{folder}/0/0/0")).unwrap();
    std::fs::write(scene.at("warp.n5/attributes.json"), r#"{"n5": "2.5.0"}"#).unwrap();
    let [nx, ny, nz] = SHAPE;
    let size = [3, nx, ny, nz];
    let mut attributes = json!({"dimensions": size, "blockSize": size, "dataType": "int16",
                                "compression": {"type": "raw"}, "spacing": [1.0, 1.0, 1.0]});
    for (key, value) in more.as_object().unwrap() {
        attributes[key] = value.clone();
    }
    std::fs::write(format!("{folder}/attributes.json"), attributes.to_string()).unwrap();
    let mut block = vec![0, 0, 0, 4];
    block.extend(size.iter().flat_map(|n| (*n as u32).to_be_bytes()));
    block.extend(samples().flat_map(|_| [500i16, -300, 200]).flat_map(i16::to_be_bytes));
    std::fs::write(format!("{folder}/0/0/0/0"), block).unwrap();
    folder
}

#[test]
fn fields_of_bigwarp_are_multiplied_and_followed_by_their_matrix() {
    let scene = Scene::new();
    let quantised = json!({"quantization_multiplier": 0.001});
    let field = n5_field(&scene, "dfield", &quantised);
    moves_by(&scene, &field, &[], &POINTS, [0.2, -0.3, 0.5]);
    let affine = [1, 0, 0, 1, 0, 1, 0, 2, 0, 0, 1, 3];
    let both = json!({"quantization_multiplier": 0.001, "affine": affine, "unit": "nm",
                      "spacing": [1000.0, 1000.0, 1000.0]});
    let field = n5_field(&scene, "x", &both);
    moves_by(&scene, &field, &[], &POINTS, [0.0032, 0.0017, 0.0015]);
    let unit = json!({"multiplier": 1, "affine": affine});
    let field = n5_field(&scene, "y", &unit);
    moves_by(&scene, &field, &["--unit", "nm"], &[[0.0; 3]], [0.203, -0.298, 0.501]);
    let out = scene.at("out.json");
    let inverse = n5_field(&scene, "invdfield", &quantised);
    let words = ["named as an inverse", "dfield", "--from bigwarp-field"];
    refused(&scene, "transcode", &[&inverse, "-o", &out], 1, &words);
    let plain = n5_field(&scene, "plain", &json!({}));
    refused(&scene, "transcode", &[&plain, "-o", &out], 1, &["does not say", "bigwarp-field"]);
    moves_by(&scene, &plain, &["--from", "bigwarp-field"], &[[0.0; 3]], [200.0, -300.0, 500.0]);
    refused(
        &scene,
        "transcode",
        &[&scene.at("warp.n5"), "-o", &out, "--from", "bigwarp-field"],
        1,
        &["group", "warp.n5/dfield"],
    );
}

const META: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
                    CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n\
                    ElementSpacing = 0.001 0.001 0.001\nDimSize = 8 7 6\nElementNumberOfChannels = 3\n\
                    ElementType = MET_FLOAT\nElementDataFile = ";

fn vectors() -> Vec<u8> {
    samples().flat_map(|_| [0.5e-3f32, -0.3e-3, 0.2e-3]).flat_map(f32::to_le_bytes).collect()
}

#[test]
fn metaimage_is_read_with_its_data_in_it_or_beside_it() {
    let scene = Scene::new();
    let beside = scene.file("field.mhd", &format!("{META}field.raw\n"));
    std::fs::write(scene.at("field.raw"), vectors()).unwrap();
    moves_by(&scene, &beside, &[], &POINTS, [0.2, -0.3, 0.5]);
    let mut whole = format!("{META}LOCAL\n").into_bytes();
    whole.extend(vectors());
    std::fs::write(scene.at("field.mha"), &whole).unwrap();
    moves_by(&scene, &scene.at("field.mha"), &[], &POINTS, [0.2, -0.3, 0.5]);
    moves_by(&scene, &scene.at("field.mha"), &["--frame", "ras"], &POINTS, [0.2, 0.3, -0.5]);
    let words: String = samples().map(|_| "0.0005 -0.0003 0.0002\n").collect();
    let ascii = format!("{META}LOCAL\n{words}").replace("BinaryData = True", "BinaryData = False");
    moves_by(&scene, &scene.file("ascii.mha", &ascii), &[], &POINTS, [0.2, -0.3, 0.5]);
    let out = scene.at("out.json");
    whole.truncate(whole.len() - 1);
    std::fs::write(scene.at("cut.mha"), &whole).unwrap();
    refused(&scene, "transcode", &[&scene.at("cut.mha"), "-o", &out], 1, &["cut off", "bytes of"]);
    let lost = scene.file("lost.mhd", &format!("{META}gone.raw\n"));
    refused(&scene, "transcode", &[&lost, "-o", &out], 1, &["gone.raw", "beside"]);
    let moving = scene.volume::<u8>("moving.zarr", [4; 3], |_| 1);
    let to = scene.at("out.zarr");
    let arguments = [&moving, "--onto", &moving, "--transform", &beside, "-o", &to];
    refused(&scene, "apply-transform", &arguments, 1, &["MetaImage", "transcode FILE"]);
}

const NRRD: &str = "NRRD0004\ntype: float\ndimension: 4\nspace: left-posterior-superior\nsizes: 3 8 7 6\n\
                    space directions: none (0.001,0,0) (0,0.001,0) (0,0,0.001)\n\
                    kinds: vector domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n";

#[test]
fn every_encoding_of_nrrd_is_read_and_slicers_word_on_the_direction_counts() {
    let scene = Scene::new();
    let words: String = samples().map(|_| "0.0005 -0.0003 0.0002\n").collect();
    let hex = vectors().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    for (encoding, data) in [("ascii", &words), ("hex", &hex)] {
        let text = NRRD.replace("raw", encoding);
        let file = scene.file("a.nrrd", &format!("{text}\n{data}"));
        moves_by(&scene, &file, &[], &POINTS, [0.2, -0.3, 0.5]);
    }
    let detached = scene.file("a.nhdr", &format!("{NRRD}byte skip: -1\ndata file: a.raw\n"));
    std::fs::write(scene.at("a.raw"), [b"before ".to_vec(), vectors()].concat()).unwrap();
    moves_by(&scene, &detached, &[], &POINTS, [0.2, -0.3, 0.5]);
    let out = scene.at("out.json");
    let typed = |word: &str| {
        let text = format!("{NRRD}displacement field type:={word}\n\n");
        std::fs::write(scene.at("s.nrrd"), [text.into_bytes(), vectors()].concat()).unwrap();
        scene.at("s.nrrd")
    };
    moves_by(&scene, &typed("resampling"), &[], &POINTS, [0.2, -0.3, 0.5]);
    let words = ["modeling", "Slicer", "moving points to fixed"];
    refused(&scene, "transcode", &[&typed("modeling"), "-o", &out], 1, &words);
    refused(&scene, "transcode", &[&typed("both"), "-o", &out], 1, &["'both'"]);
    let head =
        "#Insight Transform File V1.0\nTransform: InverseDisplacementFieldTransform_double_3_3\n";
    let modeling = scene.file("m.tfm", &format!("{head}Parameters: 0 0 0\nFixedParameters: 0\n"));
    refused(&scene, "transcode", &[&modeling, "-o", &out], 1, &["modeling", "Slicer"]);
}

#[test]
fn elastix_finds_the_transform_that_stands_in_a_file_of_itk() {
    let scene = Scene::new();
    let head = "(FixedImageDimension 3)\n(MovingImageDimension 3)\n";
    let itk = "#Insight Transform File V1.0\nTransform: TranslationTransform_double_3_3\n\
               Parameters: 0.001 0.002 0.003\nFixedParameters: \n";
    scene.file("t.0.tfm", itk);
    let file = |initial: &str, how: &str| {
        scene.file(
            "t.1.txt",
            &format!(
                "{head}(HowToCombineTransforms \"{how}\")\n(InitialTransformParameterFileName \"{initial}\")\n\
                 (Transform \"File\")\n(TransformFileName \"/elsewhere/t.0.tfm\")\n"
            ),
        )
    };
    let alone = file("NoInitialTransform", "Compose");
    moves_by(&scene, &alone, &[], &POINTS, [3.0, 2.0, 1.0]);
    let double = "(Transform \"AffineTransform\")\n(TransformParameters 2 0 0 0 2 0 0 0 2 0 0 0)\n\
                  (CenterOfRotationPoint 0 0 0)\n";
    scene.file("first.txt", &format!("{head}{double}"));
    let apply = |how| images(&scene, &file("first.txt", how), &[], &[[1.0, 2.0, 3.0]])[0];
    assert_eq!(apply("Compose").map(|v| (v * 1e6).round() / 1e6), [5.0, 6.0, 7.0]);
    assert_eq!(apply("Add").map(|v| (v * 1e6).round() / 1e6), [5.0, 6.0, 7.0]);
    // Add and Compose differ if the second transform is not a translation
    scene.file(
        "t.0.tfm",
        &itk.replace("Translation", "Scale").replace("0.001 0.002 0.003", "3 3 3"),
    );
    assert_eq!(apply("Compose").map(f64::round), [6.0, 12.0, 18.0]);
    assert_eq!(apply("Add").map(f64::round), [4.0, 8.0, 12.0]);
    let out = scene.at("out.json");
    std::fs::remove_file(scene.at("t.0.tfm")).unwrap();
    let words = ["refers to", "t.0.tfm", "beside"];
    refused(&scene, "transcode", &[&alone, "-o", &out], 1, &words);
    scene.file("t.0.tfm", "something else");
    refused(
        &scene,
        "transcode",
        &[&alone, "-o", &out],
        1,
        &["t.0.tfm", "no transform file of ITK"],
    );
}

#[test]
fn sizes_that_nothing_backs_and_members_that_hold_more_are_refused_at_once() {
    let scene = Scene::new();
    let out = scene.at("out.json");
    let mut cases: Vec<(String, &[&str])> = Vec::new();
    let mut large = nifti((1007, "", 0.0), 1.0, |_| [0.0; 3]);
    for i in 1..4 {
        large[40 + 2 * i..42 + 2 * i].copy_from_slice(&20000i16.to_le_bytes());
    }
    std::fs::write(scene.at("large.nii"), &large).unwrap();
    cases.push((scene.at("large.nii"), &["cut off"]));
    for (name, size, words) in [
        ("overflow.nrrd", "2000000000 2000000000 2000000000", &["cannot be"][..]),
        ("large.nrrd", "20000 20000 20000", &["cut off"]),
    ] {
        cases.push((scene.file(name, &format!("{}\n", NRRD.replace("8 7 6", size))), words));
        let meta = format!("{META}LOCAL\n").replace("8 7 6", size);
        cases.push((scene.file(&format!("{name}.mha"), &meta), words));
    }
    let packed = NRRD.replace("raw", "gzip").replace("8 7 6", "20000 20000 20000");
    cases.push((scene.file("gzip.nrrd", &format!("{packed}\n\u{1}")), &["cannot hold"]));
    let words = NRRD.replace("raw", "ascii").replace("8 7 6", "20000 20000 20000");
    cases.push((scene.file("ascii.nrrd", &format!("{words}\n1 2 3")), &["cannot hold"]));
    let spline = "#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1\n\
                  FixedParameters: 1000000 1000000 1000000 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1\n";
    cases.push((scene.file("spline.tfm", spline), &["1 coefficients"]));
    for (file, words) in &cases {
        refused(&scene, "transcode", &[file, "-o", &out], 1, words);
        refused(&scene, "transcode", &[file, "-o", &out, "--plan"], 1, words);
    }
    // excess data that the header does not mention are detected when they are read
    let more = format!("{}\n{}", NRRD.replace("raw", "hex"), "00".repeat(8 * 7 * 6 * 12 + 1));
    let more = scene.file("more.nrrd", &more);
    refused(&scene, "transcode", &[&more, "-o", &out], 1, &["more than the 4032 bytes"]);
}

#[test]
fn a_message_quotes_some_hundred_letters_of_a_transform_at_most() {
    let scene = Scene::new();
    let long = "A".repeat(20_000);
    let out = scene.at("out.json");
    let head = "#Insight Transform File V1.0\n";
    let ours = |body: &str| {
        format!(
            r#"{{"type": "sequence", "direction": "fixed-to-moving", "axes": ["z", "y", "x"], "unit": "um", {body}}}"#
        )
    };
    let texts = [
        ("digits.txt", "1".repeat(3_000_000)),
        ("class.tfm", format!("{head}Transform: {long}_double_3_3\nParameters: 1\n")),
        ("key.tfm", format!("{head}{long}: 1\n")),
        ("word.tfm", format!("{head}Transform: X_double_3_3\nParameters: {long}\n")),
        (
            "name.txt",
            format!("(FixedImageDimension 3)\n(Transform \"{long}\")\n(TransformParameters 1)\n"),
        ),
        (
            "file.txt",
            format!(
                "(FixedImageDimension 3)\n(Transform \"File\")\n(TransformFileName \"{long}\")\n"
            ),
        ),
        ("type.nrrd", NRRD.replace("float", &long)),
        ("space.nrrd", NRRD.replace("left-posterior-superior", &long)),
        ("sizes.nrrd", NRRD.replace("8 7 6", &"8 ".repeat(9999))),
        ("data.nrrd", format!("{NRRD}data file: {long}\n")),
        ("type.mha", format!("{META}LOCAL\n").replace("MET_FLOAT", &long)),
        ("data.mhd", format!("{META}{long}\n")),
        ("type.json", ours(&format!(r#""transformations": [{{"type": "{long}"}}]"#))),
        (
            "matrix.json",
            ours(&format!(r#""transformations": [{{"type": "affine", "affine": "{long}"}}]"#)),
        ),
        (
            "row.csv",
            format!(
                "\"Pt-0\",\"true\",\"1\",\"2\",\"3\",\"{long}\"\n\"Pt-1\",\"true\",\"1\",\"2\",\"3\",\"4\"\n"
            ),
        ),
    ];
    for (name, text) in texts {
        let file = scene.file(name, &text);
        for arguments in [
            vec!["transcode", &file, "-o", &out],
            vec!["inspect", &file],
            vec!["transcode", &file, "-o", &out, "--from", "bigwarp"],
        ] {
            let run = program(arguments[0]).args(&arguments[1..]).output().unwrap();
            let message = String::from_utf8_lossy(&run.stderr);
            let allowed = run.status.success() && arguments[0] == "inspect";
            assert!(run.status.code() == Some(1) || allowed, "{name}: {message:.400}");
            let letters = message.len() + if allowed { 0 } else { run.stdout.len() };
            assert!(letters < 900, "{name} {arguments:?}: {} letters", message.len());
        }
        assert!(!Path::new(&out).exists());
    }
    let path =
        ours(&format!(r#""transformations": [{{"type": "displacements", "path": "{long}"}}]"#));
    let (chain, points) =
        (scene.file("p.json", &path), scene.file("p.csv", "z_um,y_um,x_um\n1,2,3\n"));
    let arguments = ["--points", &points, "--transform", &chain, "-o", &scene.at("q.csv")];
    let run = program("apply-transform").args(arguments).output().unwrap();
    assert!(run.status.code() == Some(1) && run.stderr.len() < 900, "{}", run.stderr.len());
}

#[test]
fn the_name_of_the_output_tells_the_format_or_all_that_it_may_be() {
    let scene = Scene::new();
    let source = scene.volume::<u16>("a.zarr", [4, 5, 6], |[z, y, x]| (z * 30 + y * 6 + x) as u16);
    let matrix = scene.file("m.txt", "1 0 0 0.5\n0 1 0 0\n0 0 1 2\n0 0 0 1\n");
    for (name, there) in [
        ("b.n5/x", "b.n5/x/attributes.json"),
        ("c.zarr", "c.zarr/zarr.json"),
        ("d.tif", "d.tif"),
        ("e.npy", "e.npy"),
    ] {
        program("transcode").args([&source, "-o", &scene.at(name)]).assert().success();
        assert!(Path::new(&scene.at(there)).exists(), "{name}");
    }
    program("transcode")
        .args([&scene.at("b.n5/x"), "-o", &scene.at("back.zarr")])
        .assert()
        .success();
    assert!(Path::new(&scene.at("back.zarr/zarr.json")).exists());
    program("transcode").args([&matrix, "-o", &scene.at("t.tfm")]).assert().success();
    assert!(std::fs::read(scene.at("t.tfm")).unwrap().starts_with(b"#Insight"));
    program("transcode")
        .args([&source, "-o", &scene.at("two.zarr"), "--to", "zarr2"])
        .assert()
        .success();
    assert!(
        files(Path::new(&scene.at("two.zarr"))).iter().any(|(path, _)| path.ends_with(".zattrs"))
    );
    for (source, name, words) in [
        (&matrix, "m.mat", &["several formats", "--to", "ants, greedy"][..]),
        (
            &matrix,
            "n.txt",
            &["several formats", "itk, elastix, greedy, bigstream-zyx, bigstream-xyz"],
        ),
        (&matrix, "n.zarr", &["several formats", "field, ngff"]),
        (&source, "out", &["does not tell the format", "zarr3, zarr2, n5"]),
    ] {
        refused(&scene, "transcode", &[source, "-o", &scene.at(name)], 2, words);
    }
}

#[test]
fn the_way_in_which_a_field_is_taken_belongs_to_the_run() {
    let scene = Scene::new();
    let field = scene.at("f.nii");
    std::fs::write(&field, nifti((1007, "", 0.0), 1.0, |p| [p[0], 0.0, 1e-3])).unwrap();
    let grid = ["--shape", "4,32,32", "--out-spacing", "1,1,1", "--block-size", "64,64,64"];
    let landmarks = scene.file(
        "l.csv",
        "\"a\",\"true\",\"1\",\"0\",\"0\",\"0\",\"0\",\"0\"\n\"b\",\"true\",\"31\",\"0\",\"0\",\"30\",\"0\",\"0\"\n\
         \"c\",\"true\",\"1\",\"30\",\"0\",\"0\",\"30\",\"0\"\n\"d\",\"true\",\"1\",\"0\",\"33\",\"0\",\"0\",\"30\"\n\
         \"e\",\"true\",\"31\",\"30\",\"30\",\"30\",\"30\",\"30\"\n",
    );
    let cases: [(&str, &[&str], &[&str], &str); 4] = [
        (&field, &[], &["--frame", "ras"], "read as frame"),
        (&landmarks, &grid, &["--invert"], "read as direction"),
        (&landmarks, &grid, &["--unit", "nm"], "read as unit"),
        (&landmarks, &grid, &["--model", "affine"], "read as remark"),
    ];
    for (number, (source, always, changed, words)) in cases.into_iter().enumerate() {
        let out = scene.at(&format!("{number}.zarr"));
        let run = |part: &str, more: &[&str]| {
            let mut command = program("transcode");
            command.args([source, "--to", "field", "-o", &out, "--part", part, "--resume"]);
            command.args(always).args(more).output().unwrap()
        };
        let first = run("1/2", &[]);
        assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
        let second = run("2/2", changed);
        let message = String::from_utf8_lossy(&second.stderr);
        assert!(
            second.status.code() == Some(1) && message.contains(words),
            "{changed:?}: {message}"
        );
        assert!(run("2/2", &[]).status.success());
    }
}
