//! The tests that every store must pass.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use crate::store::{self, EntryKind, FolderEntry, ReadRange};

/// Names with characters that have a meaning in a URL.
const NAMES: [&str; 4] = ["zarr.json", "c/0/1", "a b+c&d=e.txt", "Zürich/50%25 (1)/0.0"];

/// Bytes that differ at each position and between objects.
pub(super) fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

/// Runs all tests in the folder `root`, which must be empty or not exist.
pub(super) fn all(root: &Path) {
    writing(&root.join("writing"));
    prepare(root);
    reading(root);
    replacing(&root.join("replacing"));
    writers_of_one_object(&root.join("two"));
    creators_of_one_object(&root.join("race"));
    listing(&root.join("listing"));
    listing_below(&root.join("listing"));
    removing(&root.join("removing"));
    versions(&root.join("versions"));
}

/// Writes the objects that [`reading`] reads.
pub(super) fn prepare(root: &Path) {
    store::put(&root.join("data/long"), &content(300_000, 7)).unwrap();
    store::put(&root.join("data/empty"), b"").unwrap();
}

fn writing(root: &Path) {
    for (i, name) in NAMES.iter().enumerate() {
        store::put(&root.join(name), &content(100, i as u8)).unwrap();
        store::put_later(&root.join("staging"), &root.join(name), &content(200, i as u8)).unwrap();
    }
    for (i, name) in NAMES.iter().enumerate() {
        assert_eq!(store::get(&root.join(name)).unwrap(), Some(content(200, i as u8)), "{name}");
        assert!(store::exists(&root.join(name)));
    }
    store::put(&root.join("empty"), b"").unwrap();
    assert_eq!(store::get(&root.join("empty")).unwrap(), Some(Vec::new()));
}

/// Checks reads of byte ranges, of missing objects, and of several objects in one call.
pub(super) fn reading(root: &Path) {
    let (long, missing) = (root.join("data/long"), root.join("data/missing"));
    let bytes = content(300_000, 7);
    let size = bytes.len() as u64;
    let mut buffer = vec![1; 7];
    let range = |start, length| ReadRange::Range { start, length };
    for (wanted, found) in [
        (ReadRange::Whole(size), &bytes[..]),
        (ReadRange::Whole(u64::MAX), &bytes),
        (ReadRange::Whole(size - 1), b""),
        (range(0, 1), &bytes[..1]),
        (range(12_345, 65_537), &bytes[12_345..77_882]),
        (range(299_999, 1), &bytes[299_999..]),
        (range(299_999, 2), b""),
        (range(size, 1), b""),
        (range(u64::MAX, 1), b""),
        (range(5, 0), b""),
        (ReadRange::End(16), &bytes[299_984..]),
        (ReadRange::End(300_000), &bytes),
        (ReadRange::End(300_001), b""),
    ] {
        assert_eq!(store::read(&long, wanted, &mut buffer).unwrap(), Some(size), "{wanted:?}");
        assert!(buffer == found, "{wanted:?} has {} bytes", buffer.len());
        assert_eq!(store::read(&missing, wanted, &mut buffer).unwrap(), None, "{wanted:?}");
    }
    let mut several = vec![long.clone(); 40];
    several.insert(17, missing.clone());
    let got = store::get_several(&several);
    assert_eq!(got.len(), 41);
    for (i, got) in got.into_iter().enumerate() {
        assert_eq!(got.unwrap().is_none(), i == 17, "object {i}");
    }
    assert_eq!(store::get(&root.join("data/empty")).unwrap(), Some(Vec::new()));
    let stat = store::stat(&long).unwrap().unwrap();
    assert_eq!((stat.kind, stat.length), (EntryKind::File, size));
    assert_eq!(store::stat(&missing).unwrap(), None);
    assert!(!store::exists(&missing) && store::exists(&long));
}

fn replacing(root: &Path) {
    let at = root.join("object");
    for (length, seed) in [(10_000, 1), (10, 2), (0, 3), (500, 4)] {
        store::put(&at, &content(length, seed)).unwrap();
        assert_eq!(store::get(&at).unwrap(), Some(content(length, seed)));
    }
}

/// Checks that a reader sees the complete content of one of the writers.
fn writers_of_one_object(root: &Path) {
    let at = root.join("object");
    store::put(&at, &content(100_000, 0)).unwrap();
    std::thread::scope(|scope| {
        for writer in 1..3u8 {
            let at = &at;
            scope.spawn(move || {
                (0..15).for_each(|_| store::put(at, &content(100_000, writer)).unwrap());
            });
        }
        for _ in 0..30 {
            let read = store::get(&at).unwrap().unwrap();
            assert!((0..3).any(|seed| read == content(100_000, seed)), "{} bytes", read.len());
        }
    });
}

/// Checks that if several threads create an object at the same time, exactly one succeeds, and the
/// object has the content of that thread.
fn creators_of_one_object(root: &Path) {
    for round in 0..6 {
        let at = root.join(format!("claim-{round}"));
        let barrier = Barrier::new(6);
        let created: Vec<bool> = std::thread::scope(|scope| {
            let create = |seed: u8| {
                let (at, barrier) = (&at, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    store::put_if_absent(at, &content(1000, seed)).unwrap()
                })
            };
            let threads: Vec<_> = (0..6).map(create).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(created.iter().filter(|created| **created).count(), 1, "{created:?}");
        let winner = created.iter().position(|created| *created).unwrap() as u8;
        assert_eq!(store::get(&at).unwrap(), Some(content(1000, winner)));
        assert!(!store::put_if_absent(&at, b"late").unwrap());
        store::delete(&at).unwrap();
        assert!(store::put_if_absent(&at, b"again").unwrap());
    }
}

fn names(folder: &Path) -> Vec<(String, EntryKind)> {
    let entries = store::list(folder).unwrap();
    let mut names: Vec<_> =
        entries.into_iter().map(|FolderEntry { name, kind, .. }| (name, kind)).collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    names
}

/// Checks that a listing contains one level of a folder, all pages of it, and no entry of another
/// folder whose name begins with the name of this folder.
fn listing(root: &Path) {
    assert_eq!(names(&root.join("nothing")), []);
    for name in ["a/zarr.json", "a/c/0/0", "a/c/0/1", "a/c.0", "ab/x", "a.b"] {
        store::put(&root.join(name), b"x").unwrap();
    }
    let file = |name: &str| (name.to_owned(), EntryKind::File);
    let folder = |name: &str| (name.to_owned(), EntryKind::Folder);
    assert_eq!(names(&root.join("a")), [folder("c"), file("c.0"), file("zarr.json")]);
    assert_eq!(names(&root.join("a/c")), [folder("0")]);
    assert_eq!(names(root), [folder("a"), file("a.b"), folder("ab")]);
    assert_eq!(store::stat(&root.join("a/c")).unwrap().unwrap().kind, EntryKind::Folder);
    assert!(store::is_folder(&root.join("a")) && !store::is_folder(&root.join("a.b")));
    let many: Vec<PathBuf> = (0..1100).map(|i| root.join(format!("many/{i}"))).collect();
    store::each(&many, |at| store::put_later(&root.join("staging"), at, b""))
        .into_iter()
        .for_each(|written: io::Result<()>| written.unwrap());
    assert_eq!(names(&root.join("many")).len(), 1100);
    let mut seen = 0;
    store::visit(&root.join("many"), &mut |_| {
        seen += 1;
        if seen < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    assert_eq!(seen, 5);
}

/// The names of all files below a folder, and of its folders if the store has them.
fn names_below(folder: &Path) -> (Vec<String>, Vec<String>) {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    store::visit_below(folder, &mut |entry| {
        let names = if entry.kind == EntryKind::File { &mut files } else { &mut folders };
        names.push(entry.name);
        ControlFlow::Continue(())
    })
    .unwrap();
    files.sort();
    folders.sort();
    (files, folders)
}

/// Checks the listing of everything below a folder that [`listing`] has written.
fn listing_below(root: &Path) {
    let (files, folders) = names_below(&root.join("a"));
    assert_eq!(files, ["c.0", "c/0/0", "c/0/1", "zarr.json"]);
    assert!(folders.is_empty() || folders == ["c", "c/0"], "{folders:?}");
    assert_eq!(names_below(&root.join("many")).0.len(), 1100);
    assert_eq!(names_below(&root.join("nothing")), (Vec::new(), Vec::new()));
    let mut seen = 0;
    store::visit_below(root, &mut |_| {
        seen += 1;
        if seen < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    assert_eq!(seen, 5);
    let mut many: Vec<PathBuf> = (0..1100).map(|i| root.join(format!("many/{i}"))).collect();
    let last = many.pop().unwrap();
    many.push(root.join("many/missing"));
    store::delete_several(&many).unwrap();
    assert_eq!(names(&root.join("many")), [("1099".to_owned(), EntryKind::File)]);
    store::delete_several(&[last]).unwrap();
    store::delete_several(&[]).unwrap();
}

fn removing(root: &Path) {
    for name in ["a/zarr.json", "a/c/0", "a/.voxloom/claim.json", "b"] {
        store::put(&root.join(name), b"x").unwrap();
    }
    store::delete(&root.join("b")).unwrap();
    store::delete(&root.join("b")).unwrap();
    assert_eq!(store::get(&root.join("b")).unwrap(), None);
    store::delete_folder(&root.join("a")).unwrap();
    store::delete_folder(&root.join("a")).unwrap();
    assert!(!store::exists(&root.join("a")) && !store::exists(&root.join("a/c/0")));
}

/// Checks that the [`Stat`](store::Stat) of an object changes if it is replaced by one of the same
/// length.
fn versions(root: &Path) {
    let at = root.join("object");
    store::put(&at, b"one").unwrap();
    let before = store::stat(&at).unwrap();
    assert_eq!(store::stat(&at).unwrap(), before);
    store::put(&at, b"two").unwrap();
    assert_ne!(store::stat(&at).unwrap(), before);
}
