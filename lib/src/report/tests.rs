//! A complete report on volumes in memory.

use std::sync::OnceLock;

use super::source::MemoryVolume;
use super::*;
use crate::geom::Point;
use crate::table::{BlockRow, Match, Status};

/// The intensity at `p` of a synthetic volume: blobs on a jittered lattice.
fn tissue(p: Point) -> f32 {
    let mut light = 0.0;
    let cell = p.map(|v| (v / 14.0).floor());
    for i in 0..27 {
        let at: Point = [i / 9, i / 3 % 3, i % 3].map(|v| f64::from(v) - 1.0);
        let at: Point = std::array::from_fn(|a| at[a] + cell[a]);
        let shake =
            |k: f64| ((at[0] * 12.9 + at[1] * 78.2 + at[2] * 37.7 + k).sin() * 43758.5).fract();
        let centre: Point = std::array::from_fn(|a| (at[a] + 0.5 + 0.4 * shake(a as f64)) * 14.0);
        let square: f64 = (0..3).map(|a| (p[a] - centre[a]).powi(2)).sum();
        light += (-square / (14.0 + 8.0 * shake(5.0))).exp() * (0.6 + 0.4 * shake(9.0).abs());
    }
    (200.0 + 900.0 * light) as f32
}

fn grid() -> Grid {
    Grid::new([48, 80, 96], [1.0, 0.8, 0.8], [0.0; 3])
}

fn shifted(by: Point) -> MemoryVolume {
    let grid = grid();
    let [low, high] = grid.extent(&grid.bounds());
    MemoryVolume::new(grid, |p| {
        let q: Point = std::array::from_fn(|a| p[a] + by[a]);
        let seen = (0..3).all(|a| low[a] <= q[a] && q[a] <= high[a]);
        if seen { (tissue(p) * 0.7).round() } else { 0.0 }
    })
}

fn papers(folder: &Path) -> Papers {
    let receipt = json!({
        "program": "ransac", "version": "0.1.0", "command": ["ransac", "f.zarr", "m.zarr", "--model", "affine"],
        "parameters": {"match_threshold": 0.7, "note": "<b>\"odd\"</b>", "align_threshold": 2.0},
        "inputs": [{"location": "f.zarr", "shape": [48, 80, 96], "dtype": "uint16", "spacing": [1.0, 0.8, 0.8]}],
        "outputs": [{"location": "transforms/global.json"}],
        "results": {"inliers": 55}, "seconds": {"wall": 0.8, "cpu": 1.4}, "peak_memory": 120_000_000,
    });
    let local = json!({
        "program": "local-affine", "version": "0.1.0", "command": "local-affine f.zarr m.zarr",
        "parameters": {"block_size": [32, 32, 32]},
        "blocks": {"done": 15, "empty": 1, "fallback": [{"index": [0, 2, 1], "reason": "4 inliers, wanted 8"}], "failed": []},
        "seconds": {"wall": 3.1, "cpu": 6.0}, "peak_memory": 300_000_000,
    });
    let paths = [("a.json", &receipt), ("b.json", &local)].map(|(name, body)| {
        let path = folder.join(name);
        std::fs::write(&path, body.to_string()).unwrap();
        path
    });
    let matches: Vec<Match> = (0..60)
        .map(|i| {
            let t = f64::from(i);
            let fixed = [t * 7.3 % 47.0, t * 11.7 % 63.0, t * 17.9 % 76.0];
            let u = [
                0.3 * (fixed[2] / 9.0).sin(),
                0.5 * (fixed[1] / 11.0).cos(),
                0.4 * (t * 2.1).sin(),
            ];
            Match {
                fixed,
                moving: std::array::from_fn(|a| fixed[a] + [4.0, -6.4, 8.0][a] + u[a]),
                correlation: 0.9,
                inlier: i % 12 != 0,
                residual: u.iter().map(|v| v * v).sum::<f64>().sqrt(),
            }
        })
        .collect();
    use Status::{Empty, Fallback, Fitted, Regularised};
    let blocks = (0..18)
        .map(|i| BlockRow {
            index: [i / 9, i / 3 % 3, i % 3],
            status: [Fitted, Fitted, Regularised, Fitted, Fallback, Empty][i * 5 % 6],
            reason: String::new(),
            spots: 60,
            matches: 50,
            inliers: 20 + i,
            median: Some(0.3),
            rms: Some(0.4),
            shift: [0.1, -0.5, 1.5],
        })
        .collect();
    let spread = json!({ "median": 0.21, "p95": 0.6, "max": 1.4, "mean": 0.3 });
    Papers {
        receipts: receipts::read_all(&paths).unwrap(),
        spots: matches.iter().map(|m| m.fixed).collect(),
        matches,
        blocks,
        truth: vec![(
            "global + local".into(),
            json!({ "points": 700, "um": spread, "voxels": spread }),
        )],
    }
}

/// The report, which is computed once for all tests because computing it is slow.
fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| make(tempfile::tempdir().unwrap().path()))
}

fn make(folder: &Path) -> Report {
    let fixed = MemoryVolume::new(grid(), |p| tissue(p).round());
    let moving = MemoryVolume::new(Grid::new([50, 90, 90], [1.0, 0.8, 0.8], [0.0; 3]), |p| {
        (tissue([p[0] - 4.0, p[1] + 6.4, p[2] - 8.0]) * 0.7).round()
    });
    let (global, local) = (shifted([4.0, -6.4, 8.0]), shifted([4.5, -6.0, 8.0]));
    let subject = Subject {
        title: None,
        fixed: ("data/fixed.zarr", &fixed),
        moving: ("data/moving.zarr", &moving),
        stages: vec![("global", "out/global.zarr", &global), ("local", "out/aligned.zarr", &local)],
        base_url: "http://localhost:8000",
        neuroglancer: "report.neuroglancer.json".into(),
    };
    compose(&subject, papers(folder), 2).unwrap()
}

#[test]
fn a_page_is_whole_offline_and_says_what_the_numbers_say() {
    let report = report();
    let page = &report.page;
    if let Ok(path) = std::env::var("VOXLOOM_KEEP_REPORT") {
        std::fs::write(path, page).unwrap();
    }
    for outside in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "the page reaches outside: {outside}");
    }
    assert_eq!(page.matches("href=\"data:image/png").count(), 3 * 3 * 3 + 1);
    assert!(page.contains("&lt;b&gt;&quot;odd&quot;&lt;&#x2f;b&gt;"), "parameters are escaped");
    let stages = report.numbers["stages"].as_array().unwrap();
    let ncc = |i: usize| stages[i]["agreement"]["ncc_overlap"].as_f64().unwrap();
    assert!(ncc(0) < 0.3 && ncc(1) > 0.999 && ncc(2) > 0.999);
    assert!(page.contains(&format!("NCC {:.3}", ncc(0))));
    assert_eq!(report.numbers["matches"]["inliers"], 55);
    assert_eq!(report.numbers["blocks"]["fitted"], 9);
}

#[test]
fn blocks_that_fell_back_are_warned_of_at_the_top() {
    let report = report();
    let warnings = report.numbers["warnings"].to_string();
    assert!(warnings.contains("4 inliers, wanted 8"), "{warnings}");
    let (warned, shown) =
        (report.page.find("To be looked at").unwrap(), report.page.find("Step by step").unwrap());
    assert!(warned < shown);
}

#[test]
fn the_viewer_shows_the_fixed_and_the_last_volume() {
    let layers = report().state["layers"].clone();
    let visible: Vec<&str> = layers
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["visible"] == true)
        .map(|l| l["source"].as_str().unwrap())
        .collect();
    assert_eq!(
        visible,
        [
            "zarr://http://localhost:8000/data/fixed.zarr",
            "zarr://http://localhost:8000/out/aligned.zarr"
        ]
    );
}

#[test]
fn a_stage_on_another_grid_is_refused_with_the_way_out() {
    let fixed = grid();
    let other = Grid { shape: [48, 80, 95], ..fixed };
    let stage: NamedLocation = "global=g.zarr".parse().unwrap();
    let message = check_grid(&stage, &other, &fixed).unwrap_err().to_string();
    assert!(message.contains("g.zarr") && message.contains("apply-transform"), "{message}");
    let rounded = Grid { spacing: [1.0 + 1e-9, 0.8, 0.8], ..fixed };
    assert_eq!(check_grid(&stage, &rounded, &fixed).ok(), Some(false));
    let spacing = fixed.spacing.map(|s| s / 2.0);
    let origin = std::array::from_fn(|a| fixed.origin[a] - 0.25 * fixed.spacing[a]);
    let whole = Grid { shape: fixed.shape.map(|n| 2 * n), spacing, origin, planar: false };
    assert_eq!(check_grid(&stage, &whole, &fixed).ok(), Some(true));
    assert!(check_grid(&stage, &Grid { shape: [96, 160, 90], ..whole }, &fixed).is_err());
}

#[test]
fn names_are_the_last_part_of_a_location() {
    assert_eq!(short_name("/a/b/fixed.zarr"), "fixed.zarr");
    assert_eq!(short_name("data/fix.n5/lowres"), "fix.n5/lowres");
    assert_eq!(short_name("plain"), "plain");
}
