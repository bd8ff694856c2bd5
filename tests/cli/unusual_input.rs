//! Unusual input: the user is told what it is, and nothing is written.

use std::path::Path;
use std::process::Command;

use crate::faults::refused;
use crate::scene::{Scene, executable, program};

/// A chain that refers to this array.
fn refers(scene: &Scene, name: &str, array: &str) -> String {
    let text = format!(
        r#"{{"type": "displacements", "path": "{array}", "direction": "fixed-to-moving",
            "axes": ["z", "y", "x"], "unit": "micrometer"}}"#
    );
    scene.file(name, &text)
}

#[test]
fn an_image_is_never_written_as_a_displacement_field() {
    let scene = Scene::new();
    let image = scene.volume::<u8>("image.zarr", [8; 3], |_| 1);
    std::fs::create_dir(scene.at("notes")).unwrap();
    scene.file("notes/a.txt", "hello");
    let tiff = scene.at("plane.tif");
    program("transcode").args([&image, "-o", &tiff, "-q"]).assert().success();
    let named = refers(&scene, "named.json", "image.zarr");
    let file = refers(&scene, "file.json", "plane.tif");
    let wanted = "a displacement field is wanted, a Zarr array (z, y, x, 3) of float32";
    for (source, what) in [
        (image.as_str(), "image.zarr: is an image and no field"),
        (&format!("{image}/0"), "image.zarr/0: has the shape [8, 8, 8]"),
        (&scene.at("notes"), "notes: holds no Zarr array"),
        (&named, "image.zarr: is an image and no field"),
        (&file, "plane.tif: holds no Zarr array"),
    ] {
        for (to, name) in [
            ("json", "out.json"),
            ("ngff", "out.zarr"),
            ("field", "out.zarr"),
            ("nifti", "out.nii"),
        ] {
            let out = scene.at(name);
            refused(&scene, "transcode", &[source, "--to", to, "-o", &out], 1, &[what, wanted]);
        }
        let out = scene.at("out.zarr");
        let pull = [image.as_str(), "--onto", &image, "-o", &out, "--transform", source];
        refused(&scene, "apply-transform", &pull, 1, &[what, wanted]);
    }
    let gone = refers(&scene, "gone.json", "gone.zarr");
    let out = scene.at("out.json");
    refused(&scene, "transcode", &[&gone, "-o", &out], 1, &["gone.zarr", "not there"]);
}

#[test]
fn a_matrix_called_mat_has_one_meaning_or_is_asked_about() {
    let scene = Scene::new();
    let image = scene.volume::<u8>("image.zarr", [8; 3], |_| 1);
    let shift = "1 0 0 0.001\n0 1 0 0.002\n0 0 1 0.003\n0 0 0 1\n";
    let matrix = scene.file("shift.MAT", shift);
    let out = scene.at("out.json");
    let words = ["--from greedy (or bigstream)", "RAS", "transcode FILE"];
    let pull = [image.as_str(), "--onto", &image, "-o", &out, "--transform", &matrix];
    refused(&scene, "apply-transform", &pull, 1, &words);
    refused(&scene, "invmap", &[&matrix, "--onto", &image, "-o", &out], 1, &words);
    let offset = |more: &[&str], words: &str| -> [f64; 3] {
        let run = program("transcode")
            .args([&matrix, "-o", &out, "--overwrite"])
            .args(more)
            .assert()
            .success();
        let message = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(message.contains(words), "{message}");
        voxloom::transform::read_affine(std::slice::from_ref(&out)).unwrap().offset()
    };
    let near = |a: [f64; 3], b: [f64; 3]| (0..3).all(|i| (a[i] - b[i]).abs() < 1e-9);
    assert!(near(offset(&[], "--from bigstream if BigStream wrote it"), [3.0, -2.0, -1.0]));
    let flag = ["--from", "bigstream"];
    assert!(near(offset(&flag, "z,y,x"), [0.001, 0.002, 0.003]));
}

#[test]
fn a_fill_value_that_the_type_does_not_hold_is_refused() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [8; 3], |_| 1);
    let unit = scene.file("unit.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let out = scene.at("out.zarr");
    let pull = |more: &[&'static str]| -> Vec<String> {
        let all = [&image, "--onto", &image, "--transform", &unit, "-o", &out].map(str::to_owned);
        all.into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
    };
    for (fill, dtype, range) in [
        ("1e9", "uint16", "whole numbers from 0 to 65535"),
        ("-1", "uint16", "whole numbers from 0 to 65535"),
        ("nan", "uint16", "whole numbers from 0 to 65535"),
        ("inf", "int8", "whole numbers from -128 to 127"),
        ("0.5", "uint8", "whole numbers from 0 to 255"),
        ("1e39", "float32", "numbers from -3.4028234663852886e38"),
        ("16777217", "uint32", "--interpolation nearest"),
    ] {
        let arguments = pull(&["--fill", fill, "--dtype", dtype]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&scene, "apply-transform", &arguments, 2, &["--fill", dtype, range]);
    }
    for more in [
        &["--fill", "65535"][..],
        &["--fill", "nan", "--dtype", "float32"],
        &["--fill", "4294967295", "--dtype", "uint32"],
        &["--fill", "16777217", "--dtype", "uint32", "--interpolation", "nearest"],
    ] {
        program("apply-transform").args(pull(more)).args(["--overwrite", "-q"]).assert().success();
    }
}

/// Runs a shell line in the scene; returns its exit code, stdout and stderr.
fn shell(scene: &Scene, line: &str) -> (i32, String, String) {
    let folder = executable("inspect").parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let run = Command::new("timeout")
        .args(["60", "bash", "-c", line])
        .current_dir(scene.at(""))
        .env("PATH", path)
        .env_remove("VOXLOOM_LOG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code().unwrap_or(-1), text(run.stdout), text(run.stderr))
}

#[test]
fn tables_and_transforms_are_read_once_from_pipes_of_any_name() {
    let scene = Scene::new();
    scene.file("points.csv", "z_um,y_um,x_um,name\n1,2,3,a\n4,5,6,b\n");
    scene.file("shift.txt", "1 0 0 1\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    scene.volume::<u8>("image.zarr", [8; 3], |_| 1);
    let carry = "apply-transform -q --receipt r.json --overwrite -o -";
    let (code, want, message) = shell(&scene, &format!("{carry} --points points.csv -t shift.txt"));
    assert_eq!(code, 0, "{message}");
    assert!(want.contains("2.000000,2.000000,3.000000,a"), "{want}");
    for line in [
        "--points <(cat points.csv) -t <(cat shift.txt)",
        "--points - -t <(cat shift.txt) < points.csv",
        "--points /dev/stdin -t shift.txt < <(cat points.csv)",
        "--points named -t shift.txt & sleep 0.3; cat points.csv > named; wait $!",
        "--points points.csv -t shift.txt --config <(echo 'threads: 1')",
    ] {
        let named = if line.contains("named") { "mkfifo named; " } else { "" };
        let (code, found, message) = shell(&scene, &format!("{named}{carry} {line}"));
        assert_eq!((code, &found), (0, &want), "{line}: {message}");
    }
    let receipt = std::fs::read_to_string(scene.at("r.json")).unwrap();
    assert!(receipt.contains("shift.txt"), "{receipt}");
    let (code, found, message) = shell(&scene, "inspect --json <(cat points.csv) <(cat shift.txt)");
    assert_eq!(code, 0, "{message}");
    assert!(found.contains(r#""kind":"table""#) && found.contains(r#""kind":"transform""#));
    let (code, _, message) = shell(&scene, "transcode -q <(cat shift.txt) --to itk -o -");
    assert_eq!(code, 0, "{message}");
    std::fs::remove_file(scene.at("named")).unwrap();
    let before = scene.contents();
    for (line, code, words) in [
        ("extract-spots <(cat image.zarr/zarr.json) -o a.csv", 2, "only tables and transforms"),
        ("transcode <(cat image.zarr/0/c/0/0/0) --to npy -o a.npy", 2, "only tables and"),
        ("inspect - < /dev/null", 1, "is empty"),
        ("inspect <(head -c 100 /dev/zero)", 1, "is a binary file and no transform"),
        ("apply-transform --points <(true) -t shift.txt -o a.csv", 1, "is empty"),
    ] {
        let (found, _, message) = shell(&scene, line);
        assert_eq!(found, code, "{line}: {message}");
        assert!(message.contains(words), "{line}: {message}");
    }
    assert!(scene.contents() == before);
}

/// The path of a foreign transform among the test data.
fn data(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/transforms");
    folder.join(name).display().to_string()
}

#[test]
fn inspect_describes_what_transcode_reads() {
    let scene = Scene::new();
    for (name, format, step) in [
        ("itk_affine.tfm", "ITK (x,y,z, LPS, millimetres)", "affine"),
        ("itk_affine.mat", "ITK or ANTs (x,y,z, LPS, millimetres)", "affine"),
        ("greedy.mat", "greedy (x,y,z, RAS, millimetres)", "affine"),
        ("elastix_0.txt", "elastix (x,y,z, LPS, millimetres)", "affine"),
        (
            "field.nii.gz",
            "NIfTI (x,y,z, LPS, millimetres, displacements)",
            "field of displacements",
        ),
        ("field_turned.nrrd", "NRRD (x,y,z, LPS, millimetres", "turned against z, y, x"),
        ("bigwarp_3d.landmarks.csv", "BigWarp (x,y,z, ", "spline"),
        ("composite.h5", "ITK (x,y,z, LPS, millimetres)", "affine"),
    ] {
        let run = program("inspect").arg(data(name)).output().unwrap();
        let (page, message) =
            (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
        assert!(run.status.success(), "{name}: {message}");
        for word in ["kind       transform", format, step, "transcode ", "fixed-to-moving"] {
            assert!(page.contains(word), "no '{word}' in {page}");
        }
        let run = program("inspect").args([&data(name), "--json"]).output().unwrap();
        let page: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(page["kind"], "transform");
    }
    let plane = scene.at("plane.json");
    let flat = data("itk_similarity_2d.tfm");
    program("transcode").args([&flat, "-o", &plane, "-q"]).assert().success();
    let run = program("inspect").arg(&plane).output().unwrap();
    let page = String::from_utf8(run.stdout).unwrap();
    let words = "in y and x, z as it is: shift -44.61, 37.92 um, turn 17.19 degrees, stretches 1.1, 1.1, \
                 shear 0, determinant 1.21";
    assert!(page.contains(words), "{page}");
}

#[test]
fn a_file_that_is_cut_off_is_named_so() {
    let scene = Scene::new();
    for (name, length) in [("field.nii", 100), ("field.nii.gz", 60), ("field.nii.gz", 300)] {
        let whole = std::fs::read(data(name)).unwrap();
        std::fs::write(scene.at(name), &whole[..length]).unwrap();
        let out = scene.at("out.json");
        refused(&scene, "transcode", &[&scene.at(name), "-o", &out], 1, &[name, "cut off"]);
        if length < 300 {
            refused(&scene, "inspect", &[&scene.at(name)], 1, &[name, "cut off"]);
        }
    }
}

#[test]
fn the_name_of_an_output_is_that_of_its_format_or_refused() {
    let scene = Scene::new();
    let image = scene.volume::<u8>("image.zarr", [8; 3], |_| 1);
    let chain = scene.file("shift.txt", "1 0 0 1\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let at = |name: &str| scene.at(name);
    for (name, to, words) in [
        ("a.png", "", "PNG is read and not written"),
        ("a.png", "zarr3", "PNG, which is read and not written"),
        ("a.json", "zarr3", "is that of JSON; let it end in .zarr"),
        ("a.zarr", "tiff", "is that of Zarr; let it end in .tif"),
        ("a.tif", "npy", "is that of TIFF; let it end in .npy"),
    ] {
        let mut line = vec![image.clone(), "-o".to_owned(), at(name)];
        let code = if to.is_empty() { 2 } else { 1 };
        line.extend(["--to", to].iter().filter(|_| !to.is_empty()).map(|word| (*word).to_owned()));
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        refused(&scene, "transcode", &line, code, &[words]);
    }
    for (name, to, code, words) in [
        ("a.json", "ngff", 1, "is that of JSON; let it end in .zarr"),
        ("a.json", "field", 1, "is that of JSON"),
        ("a.mat", "bigstream-zyx", 2, "which is that of ants or greedy"),
        ("-", "", 2, "say one with --to: json, bigstream-zyx"),
    ] {
        let out = if name == "-" { name.to_owned() } else { at(name) };
        let mut line = vec![chain.as_str(), "-o", &out, "--onto", &image];
        line.extend(["--to", to].iter().filter(|_| !to.is_empty()));
        refused(&scene, "transcode", &line, code, &[words]);
    }
    for (name, line, words) in [
        (
            "extract-spots",
            [&image[..], "-o", "a.png"].as_slice(),
            "is that of PNG; let it end in .csv",
        ),
        ("refine", &[&image, &image, "-o", "a.zarr"], "is that of Zarr; let it end in .json"),
        ("refine", &[&image, &image, "-o", "a.tfm"], "is that of ITK; let it end in .json"),
        ("extract-spots", &[&image, "-o", "a.csv", "--receipt", "b.csv"], "--receipt b.csv"),
    ] {
        refused(&scene, name, line, 2, &[words]);
    }
    // the name is refused before any block is computed
    for (name, initial) in [("deform", &chain), ("local-affine", &chain)] {
        let line = [&image[..], &image, "--initial", initial, "-o", &at("f.tif")];
        refused(&scene, name, &line, 1, &["is that of TIFF; let it end in .zarr"]);
    }
    let (png, json) = (at("a.png"), at("b.json"));
    let pull = [image.as_str(), "--onto", &image, "-t", &chain, "-o"];
    refused(&scene, "apply-transform", &[pull.as_slice(), &[&png]].concat(), 1, &["not written"]);
    let invert = ["--onto", &image, "-o", &json, &chain];
    refused(&scene, "invmap", &invert, 1, &["b.json", "let it end in .zarr"]);
    let tiff = at("a.tif");
    program("transcode").args([&image, "-o", &tiff, "-q"]).assert().success();
    let words = ["is a file, and levels are added to a multiscale image; give -o PYRAMID.zarr"];
    refused(&scene, "downsample", &[&tiff], 2, &words);
}

#[test]
fn a_refusal_is_one_sentence_in_a_user_s_words() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [8; 3], |[z, _, _]| z as u16);
    let out = scene.at("out.csv");
    let translation = |initial: &str| {
        format!(
            "(Transform \"TranslationTransform\")\n(FixedImageDimension 3)\n(TransformParameters 1 2 3)\n\
             (InitialTransformParametersFileName \"{initial}\")\n"
        )
    };
    let there = scene.file("there.txt", &translation("back.txt"));
    scene.file("back.txt", &translation("there.txt"));
    let itself = scene.file("itself.txt", &translation("itself.txt"));
    for (chain, words) in [
        (&there, "begins with there.txt, which begins with it"),
        (&itself, "begins with itself.txt, which begins with it"),
    ] {
        let json = scene.at("out.json");
        refused(&scene, "transcode", &[chain, "-o", &json], 1, &[words]);
        let message =
            program("transcode").args([chain, "-o", &json, "-q"]).output().unwrap().stderr;
        assert!(message.len() < 400, "{}", String::from_utf8_lossy(&message));
    }
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let line = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{line}]\n");
    }
    let bomb = scene.file("bomb.yaml", &bomb);
    let deep = scene.file("deep.json", &format!("{}1{}", "[".repeat(9000), "]".repeat(9000)));
    let inner = r#"{"type": "sequence", "transformations": ["#;
    let head = inner.replacen('{', r#"{"direction": "fixed-to-moving", "#, 1);
    let text = format!("{head}{}{}", inner.repeat(5000), "]}".repeat(5001));
    let chain = scene.file("chain.json", &text);
    for (config, words) in
        [(&bomb, "has more values than parameters"), (&deep, "it is nested too deeply (line 1)")]
    {
        refused(&scene, "inspect", &[&image, "--config", config], 2, &[words]);
    }
    refused(&scene, "inspect", &[&chain], 1, &["it is nested too deeply (line 1)"]);
    for (spacing, words) in [
        ("4nm,4nm", "'4nm' has a unit of its own; the unit stands once"),
        ("nan,1,1", "NaN um is no length"),
        ("1e308,1,1", "1e308 um is no length"),
        ("1", "or two along y,x for a plane"),
    ] {
        let line = [image.as_str(), "-o", &out, "--spacing", spacing];
        refused(&scene, "extract-spots", &line, 2, &[words]);
    }
    let small = [image.as_str(), "--memory", "10MB"];
    refused(&scene, "inspect", &small, 2, &["looking at it needs", "(program ", "allows 10.0 MB"]);
    let blob = |[z, y, x]: [i64; 3]| {
        let d2 = (z - 20).pow(2) + (y - 20).pow(2) + (x - 20).pow(2);
        (1000.0 * (-(d2 as f64) / 18.0).exp()) as u16 + ((z * 7 + y * 3 + x) % 5) as u16
    };
    let blob = scene.volume::<u16>("blob.zarr", [40; 3], blob);
    let small = [blob.as_str(), "-o", &out, "--radius", "2..5", "--memory", "4MB"];
    let words = ["needs --memory ", "with the program, and it is 4 MB; give so much"];
    refused(&scene, "extract-spots", &small, 2, &words);
    let line = [blob.as_str(), "-o", &out, "--threshold", "1e30", "--radius", "2..5"];
    refused(&scene, "extract-spots", &line, 1, &["threshold (1.000e30)"]);
}

#[test]
fn what_another_run_was_begun_with_is_said_by_the_name_of_the_input() {
    let scene = Scene::new();
    let shift = |x: f64| format!("1 0 0 0\n0 1 0 0\n0 0 1 {x}\n0 0 0 1\n");
    let (first, second) =
        (scene.file("first.txt", &shift(1.0)), scene.file("second.txt", &shift(2.0)));
    let points = scene.file("points.csv", "z_um,y_um,x_um\n1,2,3\n");
    let out = scene.at("out.csv");
    let line = ["--points", &points, "-t", &first, &second, "-o", &out];
    program("apply-transform").args(line).arg("-q").assert().success();
    scene.file("second.txt", &shift(3.0));
    let resume = [line.as_slice(), &["--resume"]].concat();
    let words = format!("begun with other input ({second} has other content than it had)");
    refused(&scene, "apply-transform", &resume, 1, &[&words, "--overwrite"]);

    let volume = |name: &str, value: u8| scene.volume::<u8>(name, [40; 3], move |_| value);
    let (one, other) = (volume("one.zarr", 1), volume("other.zarr", 2));
    let out = scene.at("copy.zarr");
    program("transcode").args([&one, "-o", &out, "-q"]).assert().success();
    let again = program("transcode").args([&one, "-o", &out, "--resume"]).output().unwrap();
    let message = String::from_utf8(again.stderr).unwrap();
    let words = "copy.zarr/0: its only block was done by an earlier run";
    assert!(again.status.success() && message.matches(words).count() == 1, "{message}");
    let words = ["volume has other content", "--overwrite"];
    refused(&scene, "transcode", &[&other, "-o", &out, "--resume"], 1, &words);
}

#[test]
fn a_message_is_said_once_in_a_run() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [8; 3], |_| 1);
    let shift = scene.file("shift.txt", "1 0 0 1\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let spacing = ["--moving-spacing", "2,2,2", "--fixed-spacing", "2,2,2"];
    for json in [&[][..], &["--log-json"]] {
        let run = program("apply-transform")
            .args([
                &image,
                "--onto",
                &image,
                "-t",
                &shift,
                "--overwrite",
                "-o",
                &scene.at("out.zarr"),
            ])
            .args(spacing)
            .args(json)
            .output()
            .unwrap();
        let message = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success(), "{message}");
        for words in
            ["taken as fixed-to-moving", "the voxel size is [2.0, 2.0, 2.0] um, as the command"]
        {
            assert_eq!(message.matches(words).count(), 1, "{message}");
        }
    }
}

#[test]
fn nothing_but_its_receipt_stays_beside_a_file_that_is_whole() {
    let scene = Scene::new();
    let ramp = |[z, y, x]: [i64; 3]| (z * 31 + y * 7 + x) as u16;
    let image = scene.volume::<u16>("image.zarr", [32; 3], ramp);
    for name in ["a.tif", "a.npy"] {
        let out = scene.at(name);
        let line = [image.as_str(), "-o", &out, "--block-size", "8,32,32"];
        let run = |more: &[&str]| {
            let run = program("transcode").args(line).args(more).output().unwrap();
            let message = String::from_utf8(run.stderr).unwrap();
            assert!(run.status.success(), "{message}");
            (message, std::fs::read(&out).unwrap_or_default())
        };
        let neighbours = || {
            let folder = std::fs::read_dir(scene.at("")).unwrap().flatten();
            let names = folder.map(|entry| entry.file_name().into_string().unwrap());
            let mut names: Vec<String> = names.filter(|other| other.starts_with(name)).collect();
            names.sort();
            names
        };
        let whole = vec![name.to_owned(), format!("{name}.receipt.json")];
        let (_, bytes) = run(&[]);
        assert_eq!(neighbours(), whole);
        let receipt = std::fs::read_to_string(format!("{out}.receipt.json")).unwrap();
        let receipt: serde_json::Value = serde_json::from_str(&receipt).unwrap();
        assert_eq!(receipt["blocks"]["done"], 4);
        let (message, again) = run(&["--resume"]);
        assert!(message.contains("an earlier run has done this") && again == bytes, "{message}");
        assert_eq!(neighbours(), whole);
        let other = ["--resume", "--spacing", "2,2,2"];
        refused(&scene, "transcode", &[&line[..], &other].concat(), 1, &["spacing", "--overwrite"]);
        run(&["--overwrite"]);
        assert_eq!(neighbours(), whole);
        std::fs::remove_file(&out).unwrap();
        std::fs::remove_file(format!("{out}.receipt.json")).unwrap();
        for part in ["--part=1/2", "--part=2/2"] {
            run(&[part]);
            assert!(
                neighbours().contains(&format!("{name}.voxloom")),
                "parts are left to --finish"
            );
        }
        for _ in 0..2 {
            assert_eq!(run(&["--finish"]).1, bytes);
            assert_eq!(neighbours(), whole);
        }
    }
}

#[test]
fn an_array_that_is_cut_off_is_named_so_by_inspect_too() {
    let scene = Scene::new();
    let volume = scene.volume::<u16>("v.zarr", [8; 3], |_| 3);
    let npy = scene.at("v.npy");
    program("transcode").args([&volume, "-o", &npy]).assert().success();
    let bytes = std::fs::read(&npy).unwrap();
    std::fs::write(&npy, &bytes[..bytes.len() - 9]).unwrap();
    refused(&scene, "inspect", &[&npy], 1, &["v.npy", "truncated"]);
}
