//! `deform --model bspline`: the same checks as for the dense field, and messages for bad input.

use crate::faults::refused;
use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, program};

fn results(output: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(format!("{output}.receipt.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["results"].clone()
}

/// Fits B-splines to the phantom pair in 27 blocks, with additional flags; returns the field's
/// path.
fn bent(scene: &Scene, name: &str, more: &[&str]) -> String {
    let (pair, out) = (PhantomPair::get(), scene.at(name));
    program("deform")
        .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr"), "-o", &out])
        .args(["--initial", &pair.at("global.json"), "--receipt", &format!("{out}.receipt.json")])
        .args(["--model", "bspline", "--block-size", "32,32,32", "--overlap", "8"])
        .args(more)
        .assert()
        .success();
    out
}

#[test]
fn b_splines_do_not_depend_on_threads_or_parts_and_the_receipt_says_what_they_are() {
    let scene = Scene::new();
    let one = bent(&scene, "one.zarr", &["--threads", "1"]);
    let found = chunks(&one);
    assert!(!found.is_empty());
    assert!(found == chunks(&bent(&scene, "two.zarr", &["--threads", "2"])));
    for k in 1..=3 {
        bent(&scene, "parts.zarr", &["--part", &format!("{k}/3"), "--resume"]);
    }
    assert!(found == chunks(&bent(&scene, "parts.zarr", &["--finish", "--resume"])));
    let results = results(&one);
    assert_eq!(results["model"], "B-spline, control points 8 voxels apart");
    assert!(results["after"].as_f64() > results["before"].as_f64());
    assert!(results["jacobian_least"].as_f64() > Some(0.0) && results["folded"] == 0);
    let wide = bent(&scene, "wide.zarr", &["--control-spacing", "32"]);
    assert!(found != chunks(&wide));
}

#[test]
fn b_splines_go_with_every_metric_and_with_masks() {
    let scene = Scene::new();
    let half = scene.volume::<u8>("half.zarr", [96; 3], |[_, y, _]| u8::from(y < 40));
    for metric in ["lcc", "ssq", "mi"] {
        let flags = ["--metric", metric, "--fixed-mask", &half, "--control-spacing", "16"];
        let out = bent(&scene, &format!("{metric}.zarr"), &flags);
        let results = results(&out);
        assert!(results["after"].as_f64() > results["before"].as_f64(), "{metric} {results}");
        assert!(results["jacobian_least"].as_f64() > Some(0.0), "{metric} {results}");
        // 27 blocks, of which the 9 at the far end of y are outside the mask
        let aligned = results["blocks_aligned"].as_u64().unwrap();
        assert!((9..=18).contains(&aligned), "{metric} {results}");
    }
}

#[test]
fn control_points_that_make_no_sense_are_refused() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (fixed, moving) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let out = scene.at("deform.zarr");
    let wrong = |more: &[&str], words: &[&str]| {
        let arguments: Vec<&str> =
            [fixed.as_str(), &moving, "-o", &out].into_iter().chain(more.iter().copied()).collect();
        refused(&scene, "deform", &arguments, 2, words);
    };
    for (spacing, message) in
        [("0", "from 2"), ("1.5", "from 2"), ("NaN", "no number"), ("inf", "at most")]
    {
        wrong(
            &["--model", "bspline", "--control-spacing", spacing],
            &["--control-spacing", message],
        );
    }
    wrong(
        &["--model", "dense", "--control-spacing", "8"],
        &["--control-spacing 8", "--model bspline"],
    );
    wrong(&["--model", "bspline", "--control-spacing", "wide"], &["--control-spacing", "wide"]);
    wrong(&["--model", "splines"], &["--model", "splines"]);
    wrong(&["--model", "bspline", "--control-spacing=-8"], &["--control-spacing", "from 2"]);
}
