//! Locations: local paths, and addresses of buckets and web servers.

use std::path::{Path, PathBuf};

/// The schemes of buckets and web servers.
#[cfg(feature = "cloud")]
const SCHEMES: &[&str] = &["s3", "gs", "az", "https", "http"];
#[cfg(not(feature = "cloud"))]
const SCHEMES: &[&str] = &[];

/// Parses a location from the command line or a file; removes `file://` and slashes at the end.
///
/// # Errors
/// The reason why the location is invalid, for a message that begins with the location.
pub fn parse(location: &str) -> Result<PathBuf, String> {
    let path = location.strip_prefix("file://").unwrap_or(location);
    if let Some((scheme, rest)) = path.split_once("://") {
        check(scheme, rest)?;
    }
    if let Some((scheme, rest)) = path.split_once(":/")
        && !rest.starts_with('/')
        && SCHEMES.contains(&scheme)
    {
        return Err(format!("has one slash after '{scheme}:'; write {scheme}://{rest}"));
    }
    if path.is_empty() {
        return Err("is an empty location; give a path".to_owned());
    }
    let trimmed = path.trim_end_matches('/');
    Ok(PathBuf::from(if trimmed.is_empty() { "/" } else { trimmed }))
}

/// Checks an address that is split into its `scheme` and the text after `://`, `rest`.
fn check(scheme: &str, rest: &str) -> Result<(), String> {
    if !SCHEMES.contains(&scheme) && !is_memory_scheme(scheme) {
        let known = match SCHEMES {
            [] => "use a path".to_owned(),
            _ => "use a path, or s3://, gs://, az://, https:// or http://".to_owned(),
        };
        return Err(format!("'{scheme}://' is not a place that this build can reach; {known}"));
    }
    let (root, key) = rest.split_once('/').unwrap_or((rest, ""));
    if root.is_empty() {
        let what = if scheme.starts_with("http") { "host" } else { "bucket" };
        return Err(format!("names no {what}; write {scheme}://{what}/path"));
    }
    if scheme.starts_with("http") && rest.contains(['?', '#']) {
        let message = "has a query or fragment after its path, to which no chunk's name can be \
                       appended; give the address of the volume itself";
        return Err(message.to_owned());
    }
    let key = key.trim_end_matches('/');
    if key.split('/').any(|part| matches!(part, "." | "..")) || key.contains("//") {
        let message = "has '.', '..' or nothing between two slashes, which is no name in a bucket; \
                       write the whole path";
        return Err(message.to_owned());
    }
    Ok(())
}

/// Whether this is the scheme of the store that keeps objects in memory, which only tests have.
fn is_memory_scheme(scheme: &str) -> bool {
    cfg!(test) && scheme == "memory"
}

/// The scheme, the bucket or host, and the key of an address; `None` for a local path.
pub(super) fn split(at: &Path) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = at.to_str()?.split_once("://")?;
    if !SCHEMES.contains(&scheme) && !is_memory_scheme(scheme) {
        return None;
    }
    let (root, key) = rest.split_once('/').unwrap_or((rest, ""));
    Some((scheme, root, key.trim_matches('/')))
}

/// Whether a location is in a bucket or on a web server.
pub fn is_remote(at: &Path) -> bool {
    split(at).is_some()
}

/// Whether the folders at a location can be listed; those of a web server cannot.
pub fn is_listable(at: &Path) -> bool {
    split(at).is_none_or(|(scheme, ..)| !scheme.starts_with("http"))
}

/// Whether two locations are in the same bucket, on the same web server, or both local.
pub fn is_same_root(a: &Path, b: &Path) -> bool {
    let root = |at| split(at).map(|(scheme, root, _)| (scheme, root));
    root(a) == root(b)
}

/// Resolves a relative location against `folder`. In an address, `.` and `..` are resolved here,
/// because a bucket does not interpret them.
pub fn resolve(folder: &Path, relative: &str) -> PathBuf {
    if !is_remote(folder) {
        return folder.join(relative);
    }
    let start = folder.to_str().map_or(folder, |text| Path::new(text.trim_end_matches('/')));
    relative.split('/').fold(start.to_owned(), |at, name| match name {
        "" | "." => at,
        ".." => parent(&at).map(Path::to_owned).unwrap_or(at),
        name => at.join(name),
    })
}

/// The folder of a location; `None` for a bucket itself and for the root of the file system.
pub fn parent(at: &Path) -> Option<&Path> {
    match split(at) {
        Some((_, _, "")) => None,
        _ => at.parent(),
    }
}

/// A location and the folders above it, up to the bucket.
pub fn ancestors(at: &Path) -> impl Iterator<Item = &Path> {
    std::iter::successors(Some(at), |at| parent(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_paths_are_not() {
        let at = |text: &str| parse(text).unwrap();
        assert_eq!(at("file:///a/b/"), Path::new("/a/b"));
        assert_eq!(at("/"), Path::new("/"));
        assert!(!is_remote(Path::new("a:b/c")) && !is_remote(Path::new("ftp://x/y")));
        let address = at("memory://bucket/a/b c/");
        assert_eq!(split(&address), Some(("memory", "bucket", "a/b c")));
        assert_eq!(address.join("0.0").to_str(), Some("memory://bucket/a/b c/0.0"));
        let above: Vec<_> = ancestors(&address).map(|at| at.to_str().unwrap()).collect();
        assert_eq!(above, ["memory://bucket/a/b c", "memory://bucket/a", "memory://bucket"]);
        assert_eq!(ancestors(Path::new("a/b")).last(), Some(Path::new("")));
        let to = |relative| resolve(&at("memory://b/t/x"), relative);
        assert_eq!(to("../f/./a.zarr").to_str(), Some("memory://b/t/f/a.zarr"));
        assert_eq!(to("../../../../a").to_str(), Some("memory://b/a"));
        assert_eq!(resolve(Path::new("t"), "../a"), Path::new("t/../a"));
        assert!(is_same_root(&at("memory://b/x"), &at("memory://b")));
        assert!(!is_same_root(&at("memory://b/x"), Path::new("x")));
    }

    #[test]
    fn a_location_that_names_nothing_is_refused_in_words() {
        for (location, reason) in [
            ("", "empty location"),
            ("ftp://host/x", "'ftp://' is not a place"),
            ("memory://", "names no bucket"),
            ("memory:///x", "names no bucket"),
            ("memory://b/a/../c", "write the whole path"),
            ("memory://b/a//c", "write the whole path"),
        ] {
            let message = parse(location).unwrap_err();
            assert!(message.contains(reason), "{location}: {message}");
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_web_address_with_a_query_is_refused() {
        assert!(parse("https://host/a.zarr?sig=1").unwrap_err().contains("query"));
        assert!(!is_listable(&parse("https://host/a.zarr").unwrap()));
        assert!(is_listable(&parse("s3://bucket/a.zarr").unwrap()));
    }
}
