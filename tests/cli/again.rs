//! `--resume` of what writes a file: done is done, another command is refused by the name of what
//! differs, and what was left undone is done.

use std::os::unix::fs::MetadataExt;

use crate::scene::{Pair, Scene, program};

/// A command, and a flag that makes another one of it.
struct Job {
    name: &'static str,
    words: Vec<String>,
    output: String,
    other: [&'static str; 2],
    /// The file that it reads in the scene.
    input: String,
}

/// Programs that write a table, a transform of ours and one of others.
fn jobs(scene: &Scene) -> Vec<Job> {
    let pair = Pair::get();
    let copy = |name: &str| {
        std::fs::copy(pair.at(name), scene.at(name)).unwrap();
        scene.at(name)
    };
    let (fixed, moving) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let (spots, map) = (copy("fixed.csv"), copy("global.json"));
    let moved = pair.at("moving.csv");
    let job = |name, words: &[&str], output: &str, other, input: &str| Job {
        name,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        output: scene.at(output),
        other,
        input: input.to_owned(),
    };
    vec![
        job(
            "ransac",
            &[&fixed, &moving, "--fixed-spots", &spots, "--moving-spots", &moved],
            "map.json",
            ["--seed", "7"],
            &spots,
        ),
        job(
            "apply-transform",
            &["--points", &spots, "-t", &map],
            "points.csv",
            ["--inverse-transform", "-q"],
            &map,
        ),
        job("transcode", &[&map, "--to", "itk"], "map.tfm", ["--to-unit", "um"], &map),
    ]
}

fn inode(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

impl Job {
    fn run(&self, more: &[&str]) -> assert_cmd::assert::Assert {
        program(self.name).args(&self.words).args(["-o", &self.output]).args(more).assert()
    }

    fn refused(&self, more: &[&str], word: &str) {
        let before = std::fs::read(&self.output).unwrap();
        let said = self.run(more).code(1).get_output().stderr.clone();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(word) && said.contains("--overwrite"), "{word}: {said}");
        assert!(std::fs::read(&self.output).unwrap() == before);
    }
}

#[test]
fn files_that_are_done_are_not_made_again_and_another_command_is_refused_by_name() {
    let scene = Scene::new();
    for job in jobs(&scene) {
        job.run(&[]).success();
        let receipt = format!("{}.receipt.json", job.output);
        let before = [inode(&job.output), inode(&receipt)];
        // threads and talk are no part of what is done
        job.run(&["--resume", "--threads", "1", "-v"]).success();
        assert_eq!([inode(&job.output), inode(&receipt)], before, "{}", job.name);
        job.refused(&[&["--resume"], &job.other[..]].concat(), job.other[0].trim_matches('-'));
        // without its receipt nobody knows
        std::fs::remove_file(&receipt).unwrap();
        job.run(&["--resume"]).success();
        assert_ne!(inode(&job.output), before[0], "{}", job.name);
        assert!(std::path::Path::new(&receipt).exists());
        // what is read has changed
        let text = std::fs::read_to_string(&job.input).unwrap();
        std::fs::write(&job.input, text.clone() + "\n").unwrap();
        job.refused(&["--resume"], "content");
        job.run(&["--overwrite"]).success();
        std::fs::write(&job.input, text).unwrap();
    }
}

#[test]
fn a_receipt_elsewhere_is_looked_for_there() {
    let scene = Scene::new();
    let receipt = scene.at("receipt.json");
    let Some(job) = jobs(&scene).into_iter().next_back() else { return };
    job.run(&["--receipt", &receipt]).success();
    let before = inode(&job.output);
    job.run(&["--resume", "--receipt", &receipt]).success();
    assert_eq!(inode(&job.output), before);
    std::fs::remove_file(&job.output).unwrap();
    job.run(&["--resume", "--receipt", &receipt]).success();
    assert!(std::path::Path::new(&job.output).exists());
}
