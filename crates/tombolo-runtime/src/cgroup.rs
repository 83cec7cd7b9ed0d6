//! How much memory the control groups of this process leave it, by cgroup v1 and v2.

/// The smallest memory limit of the groups that this process is in and of their parents; `None` when
/// there is no limit. The kernel's documentation: `cgroup-v2.rst`, `cgroup-v1/memory.rst`.
pub(crate) fn memory_limit_bytes() -> Option<u64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit(&membership, |path| std::fs::read_to_string(path).ok())
}

fn limit(membership: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limits = membership.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        // A group is bound by its parents too. In a container the path may be the host's, of which
        // only the root is seen.
        let ancestors = std::iter::successors(Some(path), |path| {
            path.rsplit_once('/').map(|(parent, _)| parent)
        });
        ancestors
            .filter_map(|path| read(&format!("{root}{}/{file}", path.trim_end_matches('/'))))
            // A v2 group without a limit says `max`.
            .filter_map(|text| text.trim().parse().ok())
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(membership: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit(membership, |path| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_its_parents_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "268435456\n"),
        ];
        assert_eq!(limit_of("0::/a/b\n", &files), Some(256 << 20));
        assert_eq!(limit_of("0::/c\n", &files), None);
    }

    #[test]
    fn both_versions_are_read() {
        let files = [
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4096\n"),
            ("/sys/fs/cgroup/memory.max", "8192\n"),
        ];
        assert_eq!(limit_of("4:cpu,memory:/x\n0::/\n", &files), Some(4096));
        assert_eq!(limit_of("4:cpu:/x\n0::/\n", &files), Some(8192));
    }
}
