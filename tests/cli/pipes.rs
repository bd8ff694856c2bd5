//! Tables and transforms on standard input and output.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::scene::{PhantomPair, Scene, executable, program};

/// Runs a program in the folder of the scene, with this text on its standard input.
fn piped(scene: &Scene, name: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = spawn(scene, name, arguments, Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // a program that refuses its command line does not read its input, so this may fail
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn spawn(scene: &Scene, name: &str, arguments: &[&str], input: Stdio) -> Child {
    let mut command = Command::new(executable(name));
    command.args(arguments).arg("-q").current_dir(scene.at(""));
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The standard output of a run that must succeed.
fn out(scene: &Scene, name: &str, arguments: &[&str], input: &str) -> String {
    let output = piped(scene, name, arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {:?} {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

const POINTS: &str = "z_um,y_um,x_um,name\n1,2,3,a\n40,41,42,b\n";

#[test]
fn a_table_on_standard_output_is_that_of_a_file_and_nothing_else() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let fixed = pair.at("fixed.zarr");
    let message = out(&scene, "extract-spots", &[&fixed, "-o", "-", "--receipt", "r.json"], "");
    assert_eq!(message, text(&pair.at("fixed.csv")));
    let receipt: Value = serde_json::from_str(&text(&scene.at("r.json"))).unwrap();
    assert_eq!(receipt["outputs"][0], "-");
    std::fs::remove_file(scene.at("r.json")).unwrap();
    assert_eq!(out(&scene, "extract-spots", &[&fixed, "-o", "-"], ""), message);
    assert!(scene.contents().is_empty(), "neither a file called - nor a receipt");
}

#[test]
fn a_reader_that_leaves_early_ends_a_program_quietly() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let (fixed, chain) = (pair.at("fixed.zarr"), pair.at("truth.json"));
    let many = (0..20_000).map(|i| format!("{},1,2\n", i % 90)).collect::<Vec<_>>().concat();
    let points = scene.file("points.csv", &format!("z_um,y_um,x_um\n{many}"));
    for (name, arguments) in [
        ("extract-spots", vec![fixed.as_str(), "-o", "-"]),
        ("apply-transform", vec!["--points", &points, "-t", &chain, "-o", "-"]),
        ("inspect", vec![fixed.as_str(), "--json"]),
        ("extract-spots", vec!["--help"]),
    ] {
        let mut child = spawn(&scene, name, &arguments, Stdio::null());
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{name} {arguments:?}");
    }
    assert_eq!(scene.contents().len(), 1);
}

#[test]
fn programs_work_on_one_pipe() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let [fixed, moving] = ["fixed.zarr", "moving.zarr"].map(|name| pair.at(name));
    let spots = pair.at("fixed.csv");
    let mut first = spawn(&scene, "extract-spots", &[&moving, "-o", "-"], Stdio::null());
    let table = Stdio::from(first.stdout.take().unwrap());
    let match_them = [
        &fixed,
        &moving,
        "--fixed-spots",
        &spots,
        "--moving-spots",
        "-",
        "--matches",
        "m.csv",
        "-o",
        "-",
    ];
    let mut second = spawn(&scene, "ransac", &match_them, table);
    let chain = Stdio::from(second.stdout.take().unwrap());
    let carry = ["--points", "points.csv", "--transform", "-", "-o", "-"];
    scene.file("points.csv", POINTS);
    let third = spawn(&scene, "apply-transform", &carry, chain);
    let message = String::from_utf8(third.wait_with_output().unwrap().stdout).unwrap();
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let files =
        [&fixed, &moving, "--fixed-spots", &spots, "--moving-spots", &pair.at("moving.csv")];
    out(&scene, "ransac", &[files.as_slice(), &["-o", "t.json"]].concat(), "");
    let same = ["--points", "points.csv", "--transform", "t.json", "-o", "p.csv"];
    out(&scene, "apply-transform", &same, "");
    assert_eq!(message, text(&scene.at("p.csv")));
    assert_eq!(message.lines().count(), 3);
}

#[test]
fn every_table_and_transform_may_come_from_standard_input() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let [fixed, moving, global] = ["fixed.zarr", "moving.zarr", "global.json"].map(|n| pair.at(n));
    let chain = text(&global);
    let carry = ["--points", "-", "--transform", &global, "-o", "-"];
    let carried = out(&scene, "apply-transform", &carry, POINTS);
    let back = ["--inverse-transform"];
    let back = out(&scene, "apply-transform", &[carry.as_slice(), &back].concat(), &carried);
    let first = |text: &str| text.lines().nth(2).unwrap().split(',').next().unwrap().to_owned();
    assert!((first(&back).parse::<f64>().unwrap() - 40.0).abs() < 1e-3, "{back}");

    let itk = out(&scene, "transcode", &["-", "--to", "itk", "-o", "-"], &chain);
    assert!(itk.starts_with("#Insight Transform File"), "{itk}");
    let again = out(&scene, "transcode", &["-", "--to", "json", "-o", "-"], &itk);
    let of = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let shift = |value: &Value| value["transformations"][0]["affine"][2][3].as_f64().unwrap();
    assert!((shift(&of(&again)) - shift(&of(&chain))).abs() < 1e-6);

    let page = of(&out(&scene, "inspect", &["-", "--json"], &chain));
    assert_eq!((&page["kind"], &page["location"]), (&"transform".into(), &"-".into()));
    let page = of(&out(&scene, "inspect", &["-", "--json"], POINTS));
    assert_eq!((&page["kind"], &page["rows"]), (&"table".into(), &2.into()));

    let score = ["score", "--truth", &pair.at(""), "--transform", "-"];
    assert!(of(&out(&scene, "phantom", &score, &chain))["um"]["median"].as_f64().unwrap() < 3.0);
    let refine = [
        &fixed,
        &moving,
        "--initial",
        "-",
        "--max-iterations",
        "1",
        "--samples",
        "1000",
        "-o",
        "-",
    ];
    let refined = out(&scene, "refine", &refine, &chain);
    assert_eq!(of(&refined)["direction"], "fixed-to-moving");
    let config = ["--points", "-", "--transform", &global, "--config", "p.yaml", "-o", "-"];
    scene.file("p.yaml", "threads: 2\n");
    assert_eq!(out(&scene, "apply-transform", &config, POINTS), carried);
    let config = ["--points", "p.csv", "--transform", &global, "--config", "-"];
    scene.file("p.csv", POINTS);
    assert_eq!(out(&scene, "apply-transform", &config, "output: '-'\n"), carried);
    let table =
        [&fixed, &moving, "--initial", "-", "--table", "-", "-o", "l.zarr", "--min-matches", "4"];
    let table = piped(&scene, "local-affine", &table, &chain);
    let message = String::from_utf8(table.stdout).unwrap();
    assert!(message.starts_with("block_z,block_y,block_x,status"), "{message}");
}

#[test]
fn what_no_pipe_can_carry_is_a_wrong_command_line() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let [fixed, moving, global] = ["fixed.zarr", "moving.zarr", "global.json"].map(|n| pair.at(n));
    let spots = pair.at("fixed.csv");
    for (name, arguments, word) in [
        ("extract-spots", vec!["-", "-o", "s.csv"], "VOLUME is -"),
        ("extract-spots", vec![&fixed, "-o", "-", "--part", "1/2"], "--part"),
        ("extract-spots", vec![&fixed, "-o", "-", "--resume"], "--resume"),
        (
            "apply-transform",
            vec![&moving, "--onto", &fixed, "-t", &global, "-o", "-"],
            "--output is -",
        ),
        (
            "apply-transform",
            vec![&moving, "--onto", "-", "-t", &global, "-o", "a.zarr"],
            "--onto is -",
        ),
        ("apply-transform", vec!["--points", "-", "-t", "-", "-o", "-"], "once only"),
        ("apply-transform", vec!["--points", &spots, "-t", "-", "-", "-o", "p.csv"], "once only"),
        (
            "ransac",
            vec![&fixed, &moving, "--fixed-spots", "-", "--moving-spots", "-", "-o", "t.json"],
            "once",
        ),
        (
            "ransac",
            vec![
                &fixed,
                &moving,
                "--fixed-spots",
                &spots,
                "--moving-spots",
                &spots,
                "-o",
                "-",
                "--matches",
                "-",
            ],
            "standard output can be written once",
        ),
        ("transcode", vec![&fixed, "--to", "tiff", "-o", "-"], "--output is -"),
        ("transcode", vec!["-", "--to", "zarr3", "-o", "a.zarr"], "SRC is -"),
        ("transcode", vec![&global, "-o", "-"], "say one with --to: json"),
        ("downsample", vec![&fixed, "-o", "-"], "--output is -"),
        ("deform", vec![&fixed, &moving, "-o", "-"], "--output is -"),
        ("phantom", vec!["rounds", "--size", "32", "-o", "-"], "--output is -"),
        ("inspect", vec!["--suggest", "-", &moving], "is -"),
        ("inspect", vec!["--suggest", &moving], "two volumes"),
        ("inspect", vec!["--suggest", &fixed, &moving, "--spacing", "1,1,1"], "--fixed-spacing"),
        ("inspect", vec![&fixed, "--moving-channel", "0"], "give --channel"),
        (
            "report",
            vec!["--fixed", &fixed, "--moving", &moving, "--stage", "a=-", "-o", "r.html"],
            "--stage is -",
        ),
    ] {
        let output = piped(&scene, name, &arguments, POINTS);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name} {arguments:?}: {stderr}");
        assert!(stderr.contains(word) && output.stdout.is_empty(), "no '{word}' in: {stderr}");
    }
    assert!(scene.contents().is_empty());
}

#[test]
fn a_format_is_told_by_the_name_of_the_output() {
    let scene = Scene::new();
    let volume = scene.volume::<u16>("a.zarr", [4, 5, 6], |[z, y, x]| (z * 30 + y * 6 + x) as u16);
    let affine = scene.file("a.txt", "1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n");
    let go = |from: &str, to: &str| out(&scene, "transcode", &[from, "-o", to], "");
    go(&volume, "a.n5/c0");
    go("a.n5/c0", "b.tif");
    go("b.tif", "c.zarr");
    go(&affine, "t.json");
    go("t.json", "t.tfm");
    let page = |name: &str| -> Value {
        serde_json::from_str(&out(&scene, "inspect", &[name, "--json"], "")).unwrap()
    };
    assert_eq!(page("c.zarr")["shape"], page(&volume)["shape"]);
    assert!(text(&scene.at("t.tfm")).starts_with("#Insight"));
    let unsaid = piped(&scene, "transcode", &[&volume, "-o", "unsaid"], "");
    assert_eq!(unsaid.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unsaid.stderr).contains("--to"));
}

#[test]
fn a_plan_names_what_would_be_read() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let [fixed, moving, global, spots] =
        ["fixed.zarr", "moving.zarr", "global.json", "fixed.csv"].map(|n| pair.at(n));
    let (truth, folder) = (pair.at("truth.json"), pair.at(""));
    for (name, arguments, inputs) in [
        ("extract-spots", vec![&*fixed, "-o", "s.csv"], vec![&*fixed]),
        (
            "ransac",
            vec![
                &fixed,
                &moving,
                "--fixed-spots",
                &spots,
                "--moving-spots",
                &spots,
                "-o",
                "t.json",
            ],
            vec![&fixed, &moving, &spots],
        ),
        (
            "refine",
            vec![&fixed, &moving, "--initial", &global, "-o", "t.json"],
            vec![&fixed, &moving, &global],
        ),
        (
            "local-affine",
            vec![&fixed, &moving, "--initial", &global, "-o", "l.zarr"],
            vec![&fixed, &moving, &global],
        ),
        (
            "deform",
            vec![&fixed, &moving, "--initial", &global, "-o", "d.zarr"],
            vec![&fixed, &moving, &global],
        ),
        ("invmap", vec![&truth, "--onto", &moving, "-o", "i.zarr"], vec![&truth, &moving]),
        (
            "apply-transform",
            vec![&moving, "--onto", &fixed, "-t", &truth, "-o", "a.zarr"],
            vec![&moving, &fixed, &truth],
        ),
        (
            "apply-transform",
            vec!["--points", &spots, "-t", &truth, "-o", "p.csv"],
            vec![&spots, &truth],
        ),
        ("downsample", vec![&fixed, "-o", "d.zarr", "--levels", "1"], vec![&fixed]),
        ("transcode", vec![&fixed, "-o", "f.tif"], vec![&fixed]),
        ("transcode", vec![&global, "-o", "f.tfm"], vec![&global]),
        ("phantom", vec!["score", "--truth", &folder, "--transform", &global], vec![&global]),
        ("inspect", vec![&fixed, &global], vec![&fixed, &global]),
        ("inspect", vec!["--suggest", &fixed, &moving], vec![&fixed, &moving]),
        ("pick-level", vec![&fixed, "-o", "l.txt", "--scratch", "s.zarr"], vec![&fixed]),
        (
            "report",
            vec!["--fixed", &fixed, "--moving", &moving, "--fixed-spots", &spots, "-o", "r.html"],
            vec![&fixed, &moving, &spots],
        ),
    ] {
        let message = out(&scene, name, &[arguments.as_slice(), &["--plan"]].concat(), "");
        let plan: Value = serde_json::from_str(&message).unwrap();
        let read: Vec<&Value> = plan["inputs"].as_array().unwrap().iter().collect();
        for input in inputs {
            let found =
                read.iter().find(|read| read["location"].as_str().unwrap().starts_with(input));
            let found = found.unwrap_or_else(|| panic!("{name} does not name {input}: {read:?}"));
            if std::path::Path::new(&input).extension().is_some_and(|e| e == "zarr") {
                assert_eq!(
                    (&found["dtype"], found["spacing"].is_array()),
                    (&"uint16".into(), true),
                    "{name}"
                );
            }
        }
    }
    assert!(scene.contents().is_empty(), "a plan writes nothing");
}

#[test]
fn every_answer_ends_with_a_newline() {
    let scene = Scene::new();
    let help = out_of_voxloom(&["--help"]);
    let names = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let mut answers: Vec<Vec<String>> = vec![vec!["--help".into()], vec!["--version".into()]];
    for shell in ["bash", "zsh", "fish"] {
        answers.push(vec!["completions".into(), shell.into()]);
    }
    for name in names {
        for flag in ["-h", "--help", "--version"] {
            answers.push(vec![name.to_owned(), flag.to_owned()]);
        }
    }
    assert!(answers.len() > 40, "{answers:?}");
    for answer in answers {
        let words: Vec<&str> = answer.iter().map(String::as_str).collect();
        let message = out_of_voxloom(&words);
        assert!(
            message.len() > 5 && message.ends_with('\n') && !message.ends_with("\n\n"),
            "{answer:?}"
        );
    }
    program("voxloom").args(["man", &scene.at("man")]).assert().success();
    let pages = scene.contents();
    assert!(pages.len() > 12 && pages.iter().all(|(_, page)| page.ends_with(b"\n")));
}

fn out_of_voxloom(words: &[&str]) -> String {
    let output = program("voxloom").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}
