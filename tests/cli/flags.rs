//! Numbers that no volume and no machine has, on the command line and in parameters files.

use crate::faults::refused;
use crate::scene::{PhantomPair, Scene, program};

#[test]
fn numbers_that_no_volume_has_are_refused_by_name() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let [fixed, moving, global, spots] =
        ["fixed.zarr", "moving.zarr", "global.json", "fixed.csv"].map(|name| pair.at(name));
    let at = |name: &str| scene.at(name);
    let bases: [(&str, Vec<String>, &[&str]); 8] = [
        (
            "extract-spots",
            vec![fixed.clone(), "-o".into(), at("s.csv")],
            &[
                "--radius=1e300..1e301",
                "--radius=1e-9..1e9",
                "--radius=NaN..3",
                "--radius=2..1e7",
                "--border=1e308",
                "--threshold=inf",
                "--max-spots=18446744073709551615",
                "--threads=2147483647",
                "--threads=0",
                "--memory=1e308",
                "--memory=18446744073709551616TB",
                "--block-size=9223372036854775807,2,2",
                "--part=1/18446744073709551615",
                "--channel=99999999999999999999",
                "--spacing=5e-324,1,1",
                "--origin=1e300,0,0",
                "--seed=-1",
                "--allow-failed=NaN",
                "--winsorize=NaN,0",
                "--overlap=1e9",
            ],
        ),
        (
            "local-affine",
            vec![
                fixed.clone(),
                moving.clone(),
                "--initial".into(),
                global.clone(),
                "-o".into(),
                at("l.zarr"),
            ],
            &[
                "--context-radius=1e308",
                "--context-radius=1000000vox",
                "--context-radius=1e8",
                "--max-distance=1000000000",
                "--max-distance=0",
                "--stiffness=NaN",
                "--stiffness=-1",
                "--match-threshold=NaN",
                "--overlap=-1",
                "--overlap=0.6",
                "--radius=1..1e9",
                "--min-matches=-1",
            ],
        ),
        (
            "refine",
            vec![fixed.clone(), moving.clone(), "-o".into(), at("r.json")],
            &[
                "--resolution=1e308",
                "--resolution=1e8",
                "--levels=18446744073709551615",
                "--samples=18446744073709551615",
                "--scale-range=1e-300..1",
                "--max-scale=inf",
                "--min-overlap=NaN",
                "--max-rotation=1e9",
                "--keep=99999999999",
                "--search=99999999999",
                "--max-translation=NaN",
                "--fixed-spacing=1e300,1,1",
            ],
        ),
        (
            "ransac",
            vec![
                fixed.clone(),
                moving.clone(),
                "--fixed-spots".into(),
                spots.clone(),
                "--moving-spots".into(),
                spots,
                "-o".into(),
                at("t.json"),
            ],
            &[
                "--context-radius=65vox",
                "--max-distance=-1",
                "--match-threshold=2",
                "--confidence=1",
                "--max-scale=NaN",
                "--max-iterations=99999999999",
                "--align-threshold=1e300",
                "--max-false-alarms=NaN",
                "--max-shear=inf",
            ],
        ),
        (
            "deform",
            vec![
                fixed.clone(),
                moving.clone(),
                "--initial".into(),
                global.clone(),
                "-o".into(),
                at("d.zarr"),
            ],
            &[
                "--smoothing=1e8",
                "--correlation-radius=1001",
                "--elasticity=1e300",
                "--overlap=999999999",
                "--damping=1e308",
                "--tolerance=NaN",
                "--foreground=2",
                "--min-evidence=-1",
                "--iterations=65536",
                "--levels=200",
            ],
        ),
        (
            "apply-transform",
            vec![
                moving,
                "-t".into(),
                global.clone(),
                "-o".into(),
                at("a.zarr"),
                "--out-spacing=1,1,1".into(),
            ],
            &[
                "--shape=1000000000,1000000000,1000000000",
                "--shape=1,1,18446744073709551615",
                "--shape=0,1,1",
            ],
        ),
        (
            "invmap",
            vec![global, "--onto".into(), fixed, "-o".into(), at("i.zarr")],
            &[
                "--tolerance=1e308",
                "--tolerance=NaN",
                "--tolerance=0",
                "--moving-spacing=1e-300,1,1",
            ],
        ),
        (
            "phantom",
            vec!["rounds".into(), "-o".into(), at("ph")],
            &[
                "--size=18446744073709551615",
                "--size=100000",
                "--wavelength=1e308",
                "--noise=inf",
                "--max-displacement=1e300",
                "--spacing=1e-300,1,1",
            ],
        ),
    ];
    for (name, base, flags) in bases {
        for flag in flags {
            let arguments: Vec<&str> = base.iter().map(String::as_str).chain([*flag]).collect();
            let (long, _) = flag.split_once('=').unwrap();
            refused(&scene, name, &arguments, 2, &[long]);
        }
    }
}

#[test]
fn numbers_of_a_parameters_file_are_bounded_too() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let [fixed, out] = [pair.at("fixed.zarr"), scene.at("s.csv")];
    let nested = format!("mask: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bomb: String = (0..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| {
        let list = vec![format!("*a{i}"); 9].join(", ");
        format!("{text}a{}: &a{} [{list}]\n", i + 1, i + 1)
    });
    for (line, word) in [
        ("verbose: 1099511627776", "verbose"),
        ("verbose: 18446744073709551615", "verbose"),
        ("threads: 2147483647", "--threads"),
        ("memory: 1e308", "--memory"),
        ("radius: 1e300..1e301", "--radius"),
        ("radius: {a: 1}", "radius"),
        ("radius: [[1]]", "radius"),
        ("resume: 7", "resume"),
        ("max-spots: -3", "--max-spots"),
        ("max-spots: yes please", "--max-spots"),
        ("max-spotts: 3", "max-spotts"),
        (&nested, "p.yaml"),
        (&bomb, "p.yaml"),
        ("a: &a {b: *a}", "p.yaml"),
        ("? [a, b]\n: c", "p.yaml"),
        ("threads: 1\n---\nthreads: 2", "p.yaml"),
        ("%", "p.yaml"),
        ("just words", "flag: value"),
        (&"#".repeat(3_000_000), "bytes"),
    ] {
        let file = scene.file("p.yaml", line);
        refused(&scene, "extract-spots", &[&fixed, "-o", &out, "--config", &file], 2, &[word]);
        if let Some((key, value)) = line.split_once(": ")
            && value.bytes().all(|b| b.is_ascii_digit())
        {
            let file = scene.file("p.json", &format!("{{\"{key}\": {value}}}"));
            refused(&scene, "extract-spots", &[&fixed, "-o", &out, "--config", &file], 2, &[word]);
        }
    }
    let file = scene.file("p.json", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    refused(&scene, "extract-spots", &[&fixed, "-o", &out, "--config", &file], 2, &["p.json"]);
    std::fs::write(scene.at("p.yaml"), b"radius: \xff\xfe").unwrap();
    let file = scene.at("p.yaml");
    refused(&scene, "extract-spots", &[&fixed, "-o", &out, "--config", &file], 2, &["UTF-8"]);
    // a device that never ends
    let endless = ["-o", &out, "--config", "/dev/zero"];
    refused(&scene, "extract-spots", &[&[&*fixed], endless.as_slice()].concat(), 2, &["/dev/zero"]);
}

#[test]
fn the_inverse_is_a_transform_that_inspect_knows() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let inverse = scene.at("i.zarr");
    let [truth, moving] = ["truth.json", "moving.zarr"].map(|name| pair.at(name));
    program("invmap").args([&truth, "--onto", &moving, "-o", &inverse, "-q"]).assert().success();
    let page = program("inspect").args([&inverse, "--json"]).output().unwrap();
    let page: serde_json::Value = serde_json::from_slice(&page.stdout).unwrap();
    assert_eq!(
        (&page["kind"], &page["direction"]),
        (&"transform".into(), &"moving-to-fixed".into())
    );
    assert_eq!(page["steps"][0]["type"], "displacements");
}
