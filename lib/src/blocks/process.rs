//! Memory and processor time of this process, and memory of the machine, as the system reports
//! them: in `/proc` and `/sys` on Linux. On macOS, only the physical memory is known.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Current resident memory, bytes; 0 if unknown.
pub(super) fn resident_memory() -> u64 {
    status("VmRSS:").unwrap_or(0)
}

/// Peak resident memory, bytes; `None` if unknown.
pub(super) fn peak_memory() -> Option<u64> {
    status("VmHWM:")
}

fn status(name: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Processor seconds of all threads since the start of the process.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // the second field is the program's name in parentheses and may contain any character; utime
    // and stime are fields 14 and 15, in ticks that Linux fixes at 100 per second for user programs
    // (proc(5))
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

/// Bytes that read calls and write calls have transferred since the start of the process, in this
/// order.
pub(super) fn moved_bytes() -> Option<[u64; 2]> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some([field("rchar:")?, field("wchar:")?])
}

/// The default of `--memory`, in bytes: four fifths of the available memory or of the limit of the
/// control groups, whichever is smaller. If no control group has a limit, the default is also at
/// most half of the physical memory. If the available memory is unknown too (macOS), the default is
/// that half.
pub fn memory_allowed() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = cgroup_limit(&groups, Path::new("/sys/fs/cgroup"));
    default_memory(group, kilobytes(&meminfo, "MemAvailable:"), physical_memory())
}

/// Computes [`memory_allowed`] from the control groups' limit, the available memory and the
/// physical memory, all in bytes.
fn default_memory(group: Option<u64>, free: Option<u64>, physical: Option<u64>) -> u64 {
    let half = physical.unwrap_or(ASSUMED_MEMORY) / 2;
    // a group without a limit reports "max", or in cgroup version 1 a number larger than the memory
    // of any machine
    let group = group.filter(|limit| physical.is_none_or(|physical| *limit <= physical));
    match (group, free) {
        (Some(group), free) => group.min(free.unwrap_or(u64::MAX)) / 5 * 4,
        (None, Some(free)) => half.min(free / 5 * 4),
        (None, None) => half,
    }
}

/// The assumed memory, in bytes, of a machine that does not report it.
const ASSUMED_MEMORY: u64 = 8 << 30;

/// The physical memory of the machine, bytes.
fn physical_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    meminfo.and_then(|text| kilobytes(&text, "MemTotal:")).or_else(sysctl_memory)
}

/// The physical memory as reported by `sysctl`, for macOS, which has no `/proc/meminfo`.
fn sysctl_memory() -> Option<u64> {
    if cfg!(target_os = "linux") {
        return None;
    }
    let output = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The smallest memory limit, in bytes, of the control groups that `groups` (the content of
/// `/proc/self/cgroup`) lists and of their ancestors. `root` is the folder of all control groups. A
/// line of `groups` is `0::/path` in cgroup v2, and for example `4:memory:/path` in v1.
fn cgroup_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers) = (fields.next(), fields.next().unwrap_or_default());
        let path = fields.next().unwrap_or_default().trim_start_matches('/');
        let (top, file) = match number {
            Some("0") => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let group = top.join(path);
        group
            .ancestors()
            .take_while(|folder| folder.starts_with(&top))
            .filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok())
            .collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_above_the_process_limits_it() {
        let root = tempfile::tempdir().unwrap();
        let job = root.path().join("batch/job/step");
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("batch/job/memory.max"), "4000\n").unwrap();
        fs::write(root.path().join("batch/memory.max"), "9000\n").unwrap();
        assert_eq!(cgroup_limit("0::/batch/job/step\n", root.path()), Some(4000));
        assert_eq!(cgroup_limit("0::/batch\n", root.path()), Some(9000));
        assert_eq!(cgroup_limit("0::/\n", root.path()), None);
    }

    #[test]
    fn the_memory_controller_of_version_1_is_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("memory/job")).unwrap();
        fs::write(root.path().join("memory/job/memory.limit_in_bytes"), "77\n").unwrap();
        let groups = "5:cpu,cpuacct:/job\n4:memory:/job\n";
        assert_eq!(cgroup_limit(groups, root.path()), Some(77));
    }

    #[test]
    fn the_default_is_bounded_whatever_the_system_says() {
        let gb = |n: u64| n << 30;
        assert_eq!(default_memory(Some(gb(10)), Some(gb(20)), Some(gb(64))), gb(8));
        assert_eq!(default_memory(Some(gb(10)), Some(gb(5)), Some(gb(64))), gb(4));
        assert_eq!(default_memory(None, Some(gb(60)), Some(gb(64))), gb(32));
        assert_eq!(default_memory(None, Some(gb(10)), Some(gb(64))), gb(8));
        assert_eq!(default_memory(None, None, Some(gb(64))), gb(32));
        assert_eq!(default_memory(None, None, None), gb(4));
        // cgroup version 1 without a limit
        assert_eq!(default_memory(Some(i64::MAX as u64), None, Some(gb(64))), gb(32));
        assert!(physical_memory().is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_processor() {
        assert!(resident_memory() > 100_000);
        assert!(peak_memory().unwrap() >= resident_memory() / 2);
        assert!(cpu_seconds().unwrap() >= 0.0);
        assert!(memory_allowed() > 0);
    }
}
