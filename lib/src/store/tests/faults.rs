//! Faults of the network and the server: a read returns the right bytes or an error.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conformance::{self, content};
use super::web::{STALL, Web};
use crate::store::retry::RetryPolicy;
use crate::store::{self, ReadRange, cloud, remote};

/// A policy whose `silence` is shorter than [`STALL`], so that stalled responses count as faults.
const SHORT_POLICY: RetryPolicy = RetryPolicy {
    deadline: Duration::from_secs(20),
    pause: Duration::from_millis(5),
    silence: Duration::from_millis(300),
};

/// Mounts a bucket or web server with this retry policy as `memory://name`; returns the location.
fn mount(name: &str, scheme: &str, root: &str, policy: RetryPolicy) -> PathBuf {
    let bucket = cloud::bucket(scheme, root, policy).unwrap();
    remote::mount(name, Arc::new(bucket))
}

#[test]
fn reads_from_a_faulty_web_server_return_the_right_bytes() {
    assert!(STALL > SHORT_POLICY.silence);
    let folder = tempfile::tempdir().unwrap();
    conformance::prepare(folder.path());
    let bytes = content(300_000, 7);
    // a fifth of the requests have a fault; each of the four kinds is equally frequent
    let web = Web::serve(folder.path(), 0.2);
    let at = mount("faulty-web", "http", &web.host(), SHORT_POLICY).join("data/long");
    let reads: Vec<usize> = (0..400).collect();
    std::thread::scope(|scope| {
        for reads in reads.chunks(100) {
            let (at, bytes) = (&at, &bytes);
            scope.spawn(move || {
                let mut buffer = Vec::new();
                for i in reads {
                    let start = i * 700;
                    let wanted = ReadRange::Range { start: start as u64, length: 10_000 };
                    let size = store::read(at, wanted, &mut buffer).unwrap();
                    assert_eq!(size, Some(bytes.len() as u64));
                    assert!(buffer == bytes[start..start + 10_000], "read {i}");
                }
            });
        }
    });
    let injected = web.injected();
    assert!(injected.iter().all(|count| *count >= 5), "{injected:?}");
    assert!(web.requests() >= 400 + injected.iter().sum::<usize>() / 2);
}

#[test]
fn parts_of_files_come_from_a_server_without_ranges_too() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
    std::fs::write(folder.path().join("a"), &content).unwrap();
    let web = Web::without_ranges(folder.path());
    let at = mount("web-without-ranges", "http", &web.host(), SHORT_POLICY).join("a");
    for (wanted, part) in [
        (ReadRange::Whole(1000), 0..1000),
        (ReadRange::Range { start: 300, length: 20 }, 300..320),
        (ReadRange::Range { start: 0, length: 1000 }, 0..1000),
        (ReadRange::Range { start: 990, length: 11 }, 0..0),
        (ReadRange::End(7), 993..1000),
        (ReadRange::Whole(999), 0..0),
    ] {
        let mut bytes = Vec::new();
        assert_eq!(store::read(&at, wanted, &mut bytes).unwrap(), Some(1000), "{wanted:?}");
        assert_eq!(bytes, content[part], "{wanted:?}");
    }
    // a file that was missing at the first request is not requested again
    let none = at.with_file_name("none");
    assert_eq!(store::get(&none).unwrap(), None);
    let before = web.requests();
    assert!(store::get(&none).unwrap().is_none() && store::stat_file(&none).unwrap().is_none());
    assert_eq!(web.requests(), before);
}

#[test]
fn a_server_that_always_fails_ends_in_a_temporary_error() {
    let folder = tempfile::tempdir().unwrap();
    conformance::prepare(folder.path());
    let web = Web::serve(folder.path(), 1.0);
    let policy = RetryPolicy { deadline: Duration::from_millis(1500), ..SHORT_POLICY };
    let at = mount("broken-web", "http", &web.host(), policy).join("data/long");
    let begun = Instant::now();
    for _ in 0..3 {
        let error = store::get(&at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains("when it answers"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(web.injected().iter().sum::<usize>() >= 4);
    // after the server has ended, no server is at its address
    let host = web.host();
    drop(web);
    std::thread::sleep(Duration::from_millis(50));
    let at = mount("gone-web", "http", &host, policy).join("data/long");
    assert_eq!(store::get(&at).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_server_that_never_answers_ends_in_a_temporary_error() {
    let web = Web::mute();
    let policy = RetryPolicy { deadline: Duration::from_secs(1), ..SHORT_POLICY };
    let range = ReadRange::Range { start: 0, length: 10 };
    for (name, request) in [
        ("whole", &|at: &Path| store::get(at).map(drop)),
        ("range", &|at: &Path| store::read(at, range, &mut Vec::new()).map(drop)),
        ("stat", &|at: &Path| store::stat_file(at).map(drop)),
    ] as [(&str, &dyn Fn(&Path) -> std::io::Result<()>); 3]
    {
        let at = mount(&format!("mute-{name}"), "http", &web.host(), policy).join("data/long");
        let begun = Instant::now();
        let error = request(&at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{name}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
    }
}

#[test]
fn denied_is_an_error_and_missing_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let web = Web::serve(folder.path(), 0.0);
    let root = mount("denying-web", "http", &web.host(), SHORT_POLICY);
    assert_eq!(store::get(&root.join("missing")).unwrap(), None);
    for error in [
        store::get(&root.join("denied/x")).map(drop).unwrap_err(),
        store::read(&root.join("denied/x"), ReadRange::End(4), &mut Vec::new())
            .map(drop)
            .unwrap_err(),
        store::stat(&root.join("denied/x")).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("access denied by http://127.0.0.1"), "{error}");
    }
    assert!(store::exists(&root.join("denied/x")), "what cannot be examined counts as existing");
    assert_eq!(web.requests(), 5, "a denial is not repeated");
}

/// `tests/cloud.sh` runs this test.
#[test]
#[ignore = "needs a server that speaks S3: run tests/cloud.sh"]
fn an_s3_server_conforms_behind_a_faulty_proxy() {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("tests/cloud.sh sets it");
    let bucket = std::env::var("VOXLOOM_TEST_BUCKET").expect("tests/cloud.sh sets it");
    let upstream = endpoint.trim_start_matches("http://").parse().unwrap();
    let proxy = Web::proxy(upstream, 0.2);
    let name = bucket.trim_start_matches("s3://");
    let store = cloud::s3_at(name, Some(format!("http://{}", proxy.host())), true, SHORT_POLICY);
    let root = remote::mount("faulty-s3", Arc::new(store));
    conformance::all(&root.join(format!("faulty-{}", std::process::id())));
    let injected = proxy.injected();
    assert!(injected.iter().all(|count| *count >= 5), "{injected:?}");
}

#[test]
#[ignore = "needs a server that speaks S3: run tests/cloud.sh"]
fn s3_denies_others_and_a_bucket_that_does_not_exist_is_told() {
    let bucket = std::env::var("VOXLOOM_TEST_BUCKET").expect("tests/cloud.sh sets it");
    let name = bucket.trim_start_matches("s3://");
    let store = cloud::s3_at(name, None, false, SHORT_POLICY);
    let root = remote::mount("anonymous-s3", Arc::new(store));
    let error = store::get(&root.join("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    let other = Path::new("s3://voxloom-no-such-bucket/x");
    let error = store::put(other, b"x").unwrap_err();
    assert!(error.to_string().contains("no bucket s3://voxloom-no-such-bucket"), "{error}");
}
