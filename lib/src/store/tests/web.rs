//! A web server for tests: GET and HEAD of the files in a folder, with byte ranges, on the loopback
//! interface; and a proxy in front of another server. Both can inject faults.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The number of requests after which a server ends by itself.
const MAX_REQUESTS: usize = 100_000;
/// How long a stalled answer pauses.
pub(crate) const STALL: Duration = Duration::from_millis(700);

/// A fault that is injected into the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The answer is "500 Internal Server Error".
    Error,
    /// The connection is reset before an answer.
    Reset,
    /// The answer pauses in the middle.
    Slow,
    /// The connection ends in the middle of the answer.
    Short,
}

/// Faults at a given rate, from a fixed sequence of pseudo-random numbers.
struct Faults {
    rate: f64,
    state: Mutex<u64>,
    injected: [AtomicUsize; 4],
}

impl Faults {
    fn new(rate: f64) -> Self {
        Self { rate, state: Mutex::new(1), injected: Default::default() }
    }

    /// The fault of the next request.
    fn draw(&self) -> Option<Fault> {
        // slow answers may succeed, so a server that must always fail sends none
        const KINDS: [Fault; 4] = [Fault::Error, Fault::Reset, Fault::Short, Fault::Slow];
        let kinds = if self.rate < 1.0 { 4 } else { 3 };
        let mut state = self.state.lock().unwrap();
        let mut next = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state
        };
        let hit = ((next() >> 11) as f64 / (1u64 << 53) as f64) < self.rate;
        let kind = (next() >> 20) as usize % kinds;
        if !hit {
            return None;
        }
        self.injected[kind].fetch_add(1, Ordering::Relaxed);
        Some(KINDS[kind])
    }
}

/// Computes the response of a server from the head and the body of a request.
type Answer = dyn Fn(&[u8], &[u8]) -> io::Result<Vec<u8>> + Send + Sync;

/// A running server; it ends when it is dropped.
pub(crate) struct Web {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    faults: Arc<Faults>,
    requests: Arc<AtomicUsize>,
}

impl Web {
    /// Serves the files in a folder. Paths with `denied` in them are answered with 403. `rate` is
    /// the fraction of requests with a fault.
    pub(crate) fn serve(folder: &Path, rate: f64) -> Self {
        let folder = folder.to_owned();
        Self::start(rate, move |head, _| Ok(file(&folder, head)))
    }

    /// As [`Web::serve`] without faults, but range headers are ignored: the answer is the whole
    /// file.
    pub(crate) fn without_ranges(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self::start(0.0, move |head, _| {
            let text = String::from_utf8_lossy(head);
            let lines = text.split_inclusive("\r\n");
            let is_range = |line: &&str| line.to_ascii_lowercase().starts_with("range:");
            let head: String = lines.filter(|line| !is_range(line)).collect();
            Ok(file(&folder, head.as_bytes()))
        })
    }

    /// As [`Web::serve`] without faults, but after `chunks` requests for chunks, every connection
    /// is reset.
    #[allow(dead_code, reason = "the tests of the library have no use for it")]
    pub(crate) fn dying(folder: &Path, chunks: usize) -> Self {
        let (folder, sent) = (folder.to_owned(), AtomicUsize::new(0));
        Self::start(0.0, move |head, _| {
            let is_chunk = head.starts_with(b"GET") && head.windows(3).any(|part| part == b"/c/");
            let before = sent.fetch_add(usize::from(is_chunk), Ordering::SeqCst);
            if before >= chunks {
                Err(io::ErrorKind::ConnectionReset.into())
            } else {
                Ok(file(&folder, head))
            }
        })
    }

    /// As [`Web::serve`] without faults, but the answer for a missing file is "200 OK" and a page,
    /// as from servers that list folders.
    #[allow(dead_code, reason = "the tests of the library have no use for it")]
    pub(crate) fn with_pages(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self::start(0.0, move |head, _| {
            let answer = file(&folder, head);
            if !answer.starts_with(b"HTTP/1.1 404") {
                return Ok(answer);
            }
            let page =
                if head.starts_with(b"GET") { "<!DOCTYPE html>\n<html></html>\n" } else { "" };
            let line = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\nConnection: close";
            Ok(format!("{line}\r\n\r\n{page}").into_bytes())
        })
    }

    /// A server that accepts connections and never answers.
    #[allow(dead_code, reason = "the tests of the programs have no use for it")]
    pub(crate) fn mute() -> Self {
        Self::start(0.0, |_, _| {
            std::thread::sleep(Duration::from_mins(1));
            Err(io::ErrorKind::ConnectionReset.into())
        })
    }

    /// Forwards requests to the server `upstream`; `rate` is the fraction of requests with a fault.
    pub(crate) fn proxy(upstream: SocketAddr, rate: f64) -> Self {
        Self::start(rate, move |head, body| forward(upstream, head, body))
    }

    fn start(
        rate: f64,
        answer: impl Fn(&[u8], &[u8]) -> io::Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (faults, requests) = (Arc::new(Faults::new(rate)), Arc::new(AtomicUsize::new(0)));
        let web = Self { address, stop, faults, requests };
        let (stop, faults) = (Arc::clone(&web.stop), Arc::clone(&web.faults));
        let (requests, answer): (_, Arc<Answer>) = (Arc::clone(&web.requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().take(MAX_REQUESTS) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                requests.fetch_add(1, Ordering::Relaxed);
                let (faults, answer) = (Arc::clone(&faults), Arc::clone(&answer));
                // errors of clients that disconnect are ignored
                std::thread::spawn(move || drop(handle(stream, &faults, &*answer)));
            }
        });
        web
    }

    /// The address as a location.
    pub(crate) fn location(&self) -> PathBuf {
        PathBuf::from(format!("http://{}", self.address))
    }

    /// The address without a scheme.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// The number of injected faults: errors, resets, short answers, slow answers.
    pub(crate) fn injected(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|i| self.faults.injected[i].load(Ordering::Relaxed))
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // wakes the thread that waits for connections
        drop(TcpStream::connect(self.address));
    }
}

/// Answers one request and closes the connection.
fn handle(mut stream: TcpStream, faults: &Faults, answer: &Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let fault = faults.draw();
    if fault == Some(Fault::Reset) {
        // closing a connection with unread bytes resets it
        stream.peek(&mut [0])?;
        return Ok(());
    }
    let (head, body) = request(&mut stream)?;
    let bytes = match fault {
        Some(Fault::Error) => status("500 Internal Server Error"),
        _ => answer(&head, &body)?,
    };
    let half = bytes.len() / 2;
    match fault {
        Some(Fault::Short) => stream.write_all(&bytes[..half])?,
        Some(Fault::Slow) => {
            stream.write_all(&bytes[..half])?;
            stream.flush()?;
            std::thread::sleep(STALL);
            stream.write_all(&bytes[half..])?;
        }
        _ => stream.write_all(&bytes)?,
    }
    stream.shutdown(Shutdown::Write)?;
    // waits until the client has closed the connection, so that the answer is not cut off
    let _ = stream.read(&mut [0]);
    Ok(())
}

/// The head and the body of a request.
fn request(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..count]);
    };
    let mut body = bytes.split_off(end);
    let length = header(&bytes, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.extend_from_slice(&piece[..count]);
    }
    Ok((bytes, body))
}

/// The value of a header.
fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).into_owned();
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// An answer without content.
fn status(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The answer to a request for a file.
fn file(folder: &Path, head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let mut words = text.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if path.contains("denied") {
        return status("403 Forbidden");
    }
    if method != "GET" && method != "HEAD" {
        return status("405 Method Not Allowed");
    }
    let at = folder.join(decoded(path).trim_start_matches('/'));
    let Some(content) = at.is_file().then(|| std::fs::read(&at).unwrap()) else {
        return status("404 Not Found");
    };
    let size = content.len();
    let (line, range, part) = match header(head, "range").map(|text| span(&text, size)) {
        None => ("200 OK", String::new(), 0..size),
        Some(None) => return status("416 Range Not Satisfiable"),
        Some(Some(span)) => {
            let header = format!("Content-Range: bytes {}-{}/{size}\r\n", span.start, span.end - 1);
            ("206 Partial Content", header, span)
        }
    };
    let length = part.len();
    let mut answer = format!(
        "HTTP/1.1 {line}\r\nContent-Length: {length}\r\n{range}ETag: \"{size}\"\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    if method == "GET" {
        answer.extend_from_slice(&content[part]);
    }
    answer
}

/// The range of offsets that `bytes=a-b` or `bytes=-n` means in a file of `size` bytes.
fn span(text: &str, size: usize) -> Option<std::ops::Range<usize>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = if start.is_empty() {
        (size.saturating_sub(end.parse().ok()?), size)
    } else {
        (start.parse().ok()?, end.parse::<u64>().map_or(size, |end| size.min(end as usize + 1)))
    };
    (start < end).then_some(start..end)
}

/// A path with its percent-encoded bytes decoded.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.filter(|_| *first == b'%');
        if let Some(byte) = code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a request to another server, on a connection of its own, and returns its answer.
fn forward(upstream: SocketAddr, head: &[u8], body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&head[..head.len() - 2])?;
    stream.write_all(b"Connection: close\r\n\r\n")?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
