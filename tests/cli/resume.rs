//! `--resume` of programs that write a file: finished work is kept, a different command is refused
//! with the name of the difference, and unfinished work is done.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{PhantomPair, Scene, executable, files, program};

/// A command, and a flag that makes it a different one.
struct RepeatedCommand {
    name: &'static str,
    words: Vec<String>,
    output: String,
    other: [&'static str; 2],
    /// The input file in the scene.
    input: String,
}

/// Programs that write a table, a transform in our format, and one in a foreign format.
fn jobs(scene: &Scene) -> Vec<RepeatedCommand> {
    let pair = PhantomPair::get();
    let copy = |name: &str| {
        std::fs::copy(pair.at(name), scene.at(name)).unwrap();
        scene.at(name)
    };
    let (fixed, moving) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let (spots, map) = (copy("fixed.csv"), copy("global.json"));
    let moved = pair.at("moving.csv");
    let job = |name, words: &[&str], output: &str, other, input: &str| RepeatedCommand {
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

impl RepeatedCommand {
    fn run(&self, more: &[&str]) -> assert_cmd::assert::Assert {
        program(self.name).args(&self.words).args(["-o", &self.output]).args(more).assert()
    }

    fn refused(&self, more: &[&str], word: &str) {
        let before = std::fs::read(&self.output).unwrap();
        let message = self.run(more).code(1).get_output().stderr.clone();
        let message = String::from_utf8_lossy(&message).into_owned();
        assert!(message.contains(word) && message.contains("--overwrite"), "{word}: {message}");
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
        // threads and log level do not belong to the identity
        job.run(&["--resume", "--threads", "1", "-v"]).success();
        assert_eq!([inode(&job.output), inode(&receipt)], before, "{}", job.name);
        job.refused(&[&["--resume"], &job.other[..]].concat(), job.other[0].trim_matches('-'));
        // a file that was edited by hand is neither accepted as done nor replaced
        let made = std::fs::read_to_string(&job.output).unwrap();
        std::fs::write(&job.output, made.clone() + "\n").unwrap();
        job.refused(&["--resume"], "no longer what");
        std::fs::write(&job.output, made).unwrap();
        // without its receipt, the file is written again
        std::fs::remove_file(&receipt).unwrap();
        job.run(&["--resume"]).success();
        let of_now = inode(&receipt);
        job.run(&["--resume"]).success();
        assert_eq!(inode(&receipt), of_now, "{}", job.name);
        assert!(Path::new(&receipt).exists());
        // the content of an input has changed
        let text = std::fs::read_to_string(&job.input).unwrap();
        std::fs::write(&job.input, text.clone() + "\n").unwrap();
        job.refused(&["--resume"], "content");
        job.run(&["--overwrite"]).success();
        std::fs::write(&job.input, text).unwrap();
    }
}

/// The file of the last chunk below a folder, with its bytes.
fn last_chunk(folder: &str) -> (PathBuf, Vec<u8>) {
    let mut all = files(Path::new(folder)).into_iter().map(|(path, bytes)| {
        let name = path.to_string_lossy().into_owned();
        (name.contains("/c/") && !name.contains("/.voxloom/"), path, bytes)
    });
    all.rfind(|(is_chunk, ..)| *is_chunk).map(|(_, path, bytes)| (path, bytes)).unwrap()
}

#[test]
fn chunks_that_are_gone_from_what_was_finished_are_made_again() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let (fixed, truth) = (pair.at("fixed.zarr"), pair.at("truth.json"));
    let (copy, field) = (scene.at("copy.zarr"), scene.at("field.zarr"));
    let jobs: [(&str, Vec<&str>, &str); 2] = [
        ("transcode", vec![&fixed, "--chunk", "32,32,32", "--block-size", "64,64,64"], &copy),
        ("transcode", vec![&truth, "--to", "field", "--onto", &fixed], &field),
    ];
    for (name, words, output) in jobs {
        let run =
            |more: &[&str]| program(name).args(&words).args(["-o", output]).args(more).assert();
        run(&[]).success();
        let (lost, bytes) = last_chunk(output);
        std::fs::remove_file(&lost).unwrap();
        run(&["--finish"]).code(1);
        run(&["--resume"]).success();
        assert!(lost.exists() && std::fs::read(&lost).unwrap() == bytes, "{output}");
    }
}

#[test]
fn whoever_is_killed_while_it_replaces_a_volume_leaves_none_or_its_own() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let (fixed, copy) = (pair.at("fixed.zarr"), scene.at("copy.zarr"));
    let words = [&fixed, "-o", &copy, "--chunk", "8,8,8", "--overwrite", "--no-sync", "-q"];
    program("transcode").args(words).assert().success();
    for wait in 0..12 {
        let mut child = Command::new(executable("transcode")).args(words).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(6 * wait));
        child.kill().unwrap();
        child.wait().unwrap();
        // the next run either replaces or resumes the output of the killed one
        let more: &[&str] = if wait % 2 == 0 { &[] } else { &["--resume"] };
        let kept = words.iter().filter(|word| more.is_empty() || **word != "--overwrite");
        program("transcode").args(kept).args(more).assert().success();
    }
    let left: Vec<_> = std::fs::read_dir(scene.at("")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
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
    assert!(Path::new(&job.output).exists());
}
