//! Buckets (S3, Google Cloud Storage, Azure Blob Storage) and web servers, through `object_store`.
//!
//! The interface of `object_store` is asynchronous: one runtime in this process serves all stores,
//! and the calling thread waits. Requests are retried here and not by the crate, so that a failure
//! in the body of a response is also retried, and the kind of the final error is known.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use object_store::client::HttpError;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path as Key;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::Runtime;

use super::remote::{Page, PageBelow, Remote};
use super::retry::{self, Outage, RetryPolicy, TryError};
use super::{EntryKind, FolderEntry, ReadRange, Stat};

mod settings;

#[cfg(test)]
pub(super) use settings::{bucket, s3_at};
pub use settings::{check_endpoint, set_endpoint};

/// Maximum number of characters of a server's answer that a message quotes, so that the advice
/// after the quotation stays readable.
const MAX_ANSWER: usize = 240;
/// A write whose rate is below this many bytes per second counts as stuck.
const MIN_RATE: u64 = 64 << 10;

/// A bucket or a web server.
pub(in crate::store) struct Bucket {
    /// The address, for messages: `s3://name`.
    address: String,
    store: Arc<dyn ObjectStore>,
    /// The same store for listing page by page; `None` for a web server, which cannot be listed.
    pages: Option<Arc<dyn PaginatedListStore>>,
    /// The addresses of the store and of its server, for messages: `s3://name at http://host`.
    server: String,
    /// The hint that is shown if access is denied.
    credentials: &'static str,
    policy: RetryPolicy,
    outage: Outage,
    /// Names of files that a web server does not have. They are not requested again, because they
    /// are mostly metadata files, which are assumed not to appear while this process runs.
    missing: Mutex<HashSet<String>>,
}

/// Maximum number of names in [`Bucket::missing`].
const MISSING: usize = 100_000;

/// The store of a bucket or host.
pub(super) fn open(scheme: &str, root: &str) -> io::Result<Arc<dyn Remote>> {
    Ok(Arc::new(settings::bucket(scheme, root, RetryPolicy::of_process())?))
}

/// The asynchronous runtime that all stores share.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("store")
        .enable_all()
        .build()?;
    // another thread may have set the runtime meanwhile
    Ok(RUNTIME.get_or_init(|| made))
}

/// The outcome of an attempt: `None` if the object does not exist.
type Try<T> = Result<Option<T>, TryError>;

impl Bucket {
    /// Sends a request, and repeats it after temporary faults; `limit` is the maximum time of an
    /// attempt.
    fn request<T, F: Future<Output = Try<T>>>(
        &self,
        limit: Duration,
        attempt: impl Fn(u32) -> F,
    ) -> io::Result<Option<T>> {
        let runtime = runtime()?;
        retry::repeat(self.policy, &self.outage, &self.server, |number| {
            let attempt = attempt(number);
            let outcome = runtime.block_on(async { tokio::time::timeout(limit, attempt).await });
            outcome.unwrap_or_else(|_| {
                Err(TryError::Passing(format!("no answer within {:.0} s", limit.as_secs_f64())))
            })
        })
    }

    fn key(&self, key: &str) -> Result<Key, TryError> {
        Key::parse(key).map_err(|error| {
            TryError::Permanent(format!("'{key}' is not a valid name in a bucket: {error}"))
        })
    }

    /// Classifies an error of the crate `object_store`, and composes a message.
    fn failure(&self, error: object_store::Error) -> TryError {
        use object_store::Error as E;
        let cause = innermost(&error);
        let code = code(&cause);
        let cause = crate::quote::beginning(&answer(&cause), MAX_ANSWER);
        match error {
            _ if code.is_some_and(is_no_bucket) => {
                TryError::Permanent(self.no_bucket().to_string())
            }
            _ if code.is_some_and(is_no_object) => TryError::Denied(format!(
                "access denied by {} (\"{cause}\"); {}",
                self.server, self.credentials
            )),
            _ if cause.contains("HTTP 501") => TryError::Unsupported(format!(
                "{} cannot do this (\"{cause}\"); a server with conditional writes is needed, as S3 has \
                 them",
                self.server
            )),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                let reason = self.credentials;
                TryError::Denied(format!(
                    "access denied by {} (\"{cause}\"); {reason}",
                    self.server
                ))
            }
            E::NotSupported { .. } | E::NotImplemented { .. } => TryError::Unsupported(cause),
            error if is_passing(&error) => TryError::Passing(cause),
            _ => TryError::Permanent(cause),
        }
    }

    /// The outcome of a request: `None` if the object is missing; errors as by [`Bucket::failure`].
    fn outcome<T>(&self, result: object_store::Result<T>) -> Try<T> {
        match result {
            Ok(result) => Ok(Some(result)),
            // "not found" may also mean that the bucket or, on some servers, the user does not
            // exist
            Err(object_store::Error::NotFound { source, .. })
                if !code(&innermost(source.as_ref())).is_some_and(is_no_object) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failure(error)),
        }
    }

    /// As [`Bucket::outcome`]; a temporary fault if no answer begins within
    /// [`RetryPolicy::silence`].
    async fn answer_to<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Try<T> {
        self.outcome(self.in_time(request).await?)
    }

    /// The output of `request`; a temporary fault if it takes longer than [`RetryPolicy::silence`].
    async fn in_time<T>(&self, request: impl Future<Output = T>) -> Result<T, TryError> {
        let silence = self.policy.silence;
        tokio::time::timeout(silence, request).await.map_err(|_| {
            TryError::Passing(format!("no answer within {:.0} s", silence.as_secs_f64()))
        })
    }

    /// One attempt of [`Remote::read`]: the length of the object, and the wanted bytes if they
    /// exist.
    async fn get(&self, key: &Key, wanted: ReadRange) -> Try<(u64, Vec<u8>)> {
        let range = match wanted {
            // an empty range cannot be requested
            ReadRange::Whole(_) | ReadRange::Range { length: 0, .. } | ReadRange::End(0) => None,
            ReadRange::Range { start, length } => {
                Some(GetRange::Bounded(start..start.saturating_add(length as u64)))
            }
            ReadRange::End(length) => Some(GetRange::Suffix(length as u64)),
        };
        let is_range = range.is_some();
        let options = GetOptions { range, ..GetOptions::default() };
        let found = match self.answer_to(self.store.get_opts(key, options)).await {
            // some web servers do not support range requests: the whole file is then read
            Err(TryError::Unsupported(_)) if is_range => {
                self.warn_of_ranges();
                self.answer_to(self.store.get_opts(key, GetOptions::default())).await?
            }
            // perhaps the range begins after the end of the object, which is no error
            Err(TryError::Permanent(cause)) if is_range => {
                let stat = self.answer_to(self.store.head(key)).await?;
                return match stat {
                    Some(stat) if wanted.within(stat.size).is_some() => {
                        Err(TryError::Permanent(cause))
                    }
                    stat => Ok(stat.map(|stat| (stat.size, Vec::new()))),
                };
            }
            other => other?,
        };
        let Some(found) = found else { return Ok(None) };
        let size = found.meta.size;
        let Some(range) = wanted.within(size) else { return Ok(Some((size, Vec::new()))) };
        let given = found.range.clone();
        let expected = (given.end - given.start) as usize;
        if range.is_empty() {
            return Ok(Some((size, Vec::new())));
        }
        let mut bytes = Vec::with_capacity(expected);
        let mut body = found.into_stream();
        loop {
            let piece = tokio::time::timeout(self.policy.silence, body.try_next()).await;
            let silent = |_| TryError::Passing(format!("nothing after {} bytes", bytes.len()));
            match piece.map_err(silent)? {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break,
                // an interrupted body counts as a temporary fault, whatever the cause
                Err(error) => return Err(TryError::Passing(innermost(&error))),
            }
        }
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(TryError::Passing(format!("{found} bytes arrived of {expected}")));
        }
        if given != range && given.start <= range.start && range.end <= given.end {
            bytes.truncate((range.end - given.start) as usize);
            bytes.drain(..(range.start - given.start) as usize);
        }
        Ok(Some((size, bytes)))
    }

    fn warn_of_ranges(&self) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                "{} sends no parts of files, so that a whole file is requested for each part of it; copy \
                 large TIFF and .npy files to a local path",
                self.address
            );
        });
    }

    /// Whether the store is a web server that is known not to have a file.
    fn is_missing(&self, key: &str) -> bool {
        self.pages.is_none() && self.lock_missing().contains(key)
    }

    /// Remembers that a web server does not have a file; nothing is remembered for a bucket.
    fn note_missing(&self, key: &str) {
        let mut missing = self.lock_missing();
        if self.pages.is_none() && missing.len() < MISSING {
            missing.insert(key.to_owned());
        }
    }

    fn lock_missing(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The maximum time of one attempt to write `bytes` bytes.
    fn limit(&self, bytes: usize) -> Duration {
        self.policy.silence + Duration::from_secs(bytes as u64 / MIN_RATE)
    }

    /// The maximum time of one attempt to read. It is long, because each piece of the body has a
    /// limit of its own, [`RetryPolicy::silence`].
    fn reading(&self) -> Duration {
        self.policy.silence.saturating_mul(20)
    }
}

impl Remote for Bucket {
    fn read(&self, key: &str, wanted: ReadRange, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
        if self.is_missing(key) {
            return Ok(None);
        }
        let got = self.request(self.reading(), |_| async move {
            let key = self.key(key)?;
            self.get(&key, wanted).await
        })?;
        if got.is_none() {
            self.note_missing(key);
        }
        Ok(got.map(|(size, bytes)| {
            *buffer = bytes;
            size
        }))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let payload = PutPayload::from(bytes.to_vec());
        let written = self.request(self.limit(bytes.len()), |_| {
            let payload = payload.clone();
            async move { self.outcome(self.store.put(&self.key(key)?, payload).await) }
        })?;
        match written {
            Some(_) => Ok(()),
            None => Err(self.no_bucket()),
        }
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> io::Result<bool> {
        self.check_writable()?;
        let payload = PutPayload::from(bytes.to_vec());
        let written = self.request(self.limit(bytes.len()), |number| {
            let payload = payload.clone();
            async move {
                let key = self.key(key)?;
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                match self.store.put_opts(&key, payload, options).await {
                    Ok(_) => Ok(Some(true)),
                    Err(
                        object_store::Error::AlreadyExists { .. }
                        | object_store::Error::Precondition { .. },
                    ) => {
                        // an earlier attempt may have succeeded although its answer was lost
                        let there = match number {
                            0 => None,
                            _ => self.get(&key, ReadRange::Whole(bytes.len() as u64)).await?,
                        };
                        Ok(Some(there.is_some_and(|(_, there)| there == bytes)))
                    }
                    Err(error) => self.outcome(Err(error)),
                }
            }
        })?;
        written.ok_or_else(|| self.no_bucket())
    }

    fn delete(&self, keys: &[String]) -> io::Result<()> {
        self.check_writable()?;
        self.request(self.reading(), |_| async move {
            let keys = keys.iter().map(|key| self.key(key)).collect::<Result<Vec<_>, _>>()?;
            let keys = futures_util::stream::iter(keys.into_iter().map(Ok)).boxed();
            let mut deleted = self.store.delete_stream(keys);
            while let Some(result) = self.in_time(deleted.next()).await? {
                match result {
                    // some servers report an object that another process has removed
                    Err(error) if innermost(&error).contains("NoSuchKey") => {}
                    result => drop(self.outcome(result)?),
                }
            }
            Ok(Some(()))
        })?;
        Ok(())
    }

    fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        if key.is_empty() || self.is_missing(key) {
            return Ok(None);
        }
        let limit = self.policy.silence;
        let stat = self.request(limit, |_| async move {
            self.outcome(self.store.head(&self.key(key)?).await)
        })?;
        if stat.is_none() {
            self.note_missing(key);
        }
        Ok(stat.map(|stat| {
            let changed = SystemTime::from(stat.last_modified);
            Stat {
                kind: EntryKind::File,
                length: stat.size,
                // if the server does not state a time, the crate sets it to the beginning of 1970
                changed: Some(changed).filter(|time| *time != SystemTime::UNIX_EPOCH),
                tag: stat.e_tag,
            }
        }))
    }

    fn page(&self, key: &str, most: usize, token: Option<String>) -> io::Result<Page> {
        let page = self.listed(key, Some("/"), most, token.as_ref())?;
        let name = |path: &Key| path.filename().map(str::to_owned);
        let folders = page.result.common_prefixes.iter().filter_map(name);
        let mut entries: Vec<_> = folders
            .map(|name| FolderEntry { name, kind: EntryKind::Folder, is_link: false })
            .collect();
        // an object whose name ends in a slash marks an empty folder
        let objects = page.result.objects.iter().filter(|o| o.location.as_ref() != key);
        let files = objects.filter_map(|object| name(&object.location));
        entries.extend(files.map(|name| FolderEntry {
            name,
            kind: EntryKind::File,
            is_link: false,
        }));
        Ok((entries, page.page_token))
    }

    fn page_below(&self, key: &str, token: Option<String>) -> io::Result<PageBelow> {
        let page = self.listed(key, None, usize::MAX, token.as_ref())?;
        let objects = page.result.objects.iter();
        let below = objects.filter_map(|object| match key {
            "" => Some(object.location.as_ref()),
            key => object.location.as_ref().strip_prefix(key)?.strip_prefix('/'),
        });
        Ok((below.map(str::to_owned).collect(), page.page_token))
    }
}

impl Bucket {
    /// A page of the objects below a folder. With a delimiter, those in subfolders are not listed;
    /// the subfolders are listed as common prefixes.
    fn listed(
        &self,
        key: &str,
        delimiter: Option<&'static str>,
        most: usize,
        token: Option<&String>,
    ) -> io::Result<PaginatedListResult> {
        let Some(pages) = &self.pages else {
            let message =
                format!("{} is a web server, whose folders cannot be listed", self.address);
            return Err(retry::error(io::ErrorKind::Unsupported, message));
        };
        let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
        let page = self.request(self.policy.silence, |_| {
            let options = PaginatedListOptions {
                delimiter: delimiter.map(Into::into),
                max_keys: Some(most.clamp(1, 1000)),
                page_token: token.cloned(),
                ..PaginatedListOptions::default()
            };
            let prefix = (!prefix.is_empty()).then_some(prefix.as_str());
            async move { self.outcome(pages.list_paginated(prefix, options).await) }
        })?;
        page.ok_or_else(|| self.no_bucket())
    }

    /// Refuses to write to a web server.
    fn check_writable(&self) -> io::Result<()> {
        if self.pages.is_some() {
            return Ok(());
        }
        let message = "a web server can only be read; give a local path, or an address in a bucket";
        Err(retry::error(io::ErrorKind::Unsupported, message))
    }

    fn no_bucket(&self) -> io::Error {
        let message = format!(
            "there is no bucket {}; create it, or check its name and --endpoint",
            self.server
        );
        retry::error(io::ErrorKind::Other, message)
    }
}

/// The text of the innermost cause, which is the most specific; for a response of the server, the
/// whole response.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts = causes.map(ToString::to_string).collect::<Vec<_>>();
    let answer = texts.iter().rposition(|text| text.starts_with("Server returned"));
    let last = answer.unwrap_or(texts.len() - 1);
    texts.swap_remove(last).replace("Server returned non-2xx status code: ", "HTTP ")
}

/// The code of an error in an answer of a server, such as `NoSuchBucket`.
fn code(answer: &str) -> Option<&str> {
    element(answer, "Code")
}

/// Whether this is the code of a missing bucket.
fn is_no_bucket(code: &str) -> bool {
    matches!(code, "NoSuchBucket" | "ContainerNotFound")
}

/// Whether a response "not found" with this code refers to the bucket or the user, and not to the
/// object.
fn is_no_object(code: &str) -> bool {
    is_no_bucket(code) || matches!(code, "XAdminUserNotFound" | "InvalidAccessKeyId")
}

/// The text of an XML element.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// A response of a server on one line; if it is XML, only its status, code and message.
fn answer(text: &str) -> String {
    let status = text.split(": <?xml").next().unwrap_or(text);
    match (code(text), element(text, "Message")) {
        (Some(code), Some(message)) => format!("{status}: {code}: {message}"),
        (Some(code), None) => format!("{status}: {code}"),
        _ => text.to_owned(),
    }
    .replace('\n', " ")
}

/// Whether a request may succeed when it is repeated: the connection failed, or the server is busy
/// or has an internal error.
fn is_passing(error: &(dyn std::error::Error + 'static)) -> bool {
    const CODES: [&str; 4] = ["status code: 5", "status code: 429", "status code: 408", "SlowDown"];
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        // the crate has no public type for an error response
        let text = error.to_string();
        error.is::<HttpError>()
            || text.starts_with("Server returned error response")
            || CODES.iter().any(|code| text.contains(code))
    })
}
