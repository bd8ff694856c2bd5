//! Runs one test suite, which every back end must pass, on each back end.

mod conformance;
#[cfg(feature = "cloud")]
mod faults;
#[cfg(feature = "cloud")]
mod web;

use std::path::Path;

#[test]
fn a_local_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conformance::all(folder.path());
    // no temporary file is left
    let left = super::list(folder.path()).unwrap();
    assert!(left.iter().all(|entry| !entry.name.starts_with('.')), "{left:?}");
}

#[test]
fn a_store_in_memory_conforms() {
    conformance::all(Path::new("memory://conformance/below"));
}

#[cfg(feature = "cloud")]
#[test]
fn a_web_server_conforms_where_it_can() {
    let folder = tempfile::tempdir().unwrap();
    conformance::prepare(folder.path());
    let web = web::Web::serve(folder.path(), 0.0);
    let root = web.location();
    conformance::reading(&root);
    let refused = super::put(&root.join("new"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported, "{refused}");
    assert_eq!(super::list(&root).unwrap_err().kind(), std::io::ErrorKind::Unsupported);
}

/// `tests/cloud.sh` runs this test: it starts the server and sets the variables.
#[cfg(feature = "cloud")]
#[test]
#[ignore = "needs a server that speaks S3: run tests/cloud.sh"]
fn an_s3_server_conforms() {
    let bucket = std::env::var("VOXLOOM_TEST_BUCKET").expect("tests/cloud.sh sets it");
    conformance::all(&Path::new(&bucket).join(format!("conformance-{}", std::process::id())));
}
