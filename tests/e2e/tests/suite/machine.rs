//! Small machines: a control group of 256 MB, and an address space that no pool fits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tombolo_e2e::{Server, guest, tombolo};

const LIMIT_BYTES: u64 = 256 << 20;

/// A memory control group; removed when dropped.
struct Group {
    folder: PathBuf,
    /// The file that tells the most memory its processes ever had.
    peak: PathBuf,
}

impl Group {
    /// A new group, where this machine lets us make one.
    fn new() -> Option<Self> {
        let name = format!("tombolo-test-{}", std::process::id());
        let versions = [
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            ),
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
        ];
        versions.into_iter().find_map(|(root, limit, peak)| {
            let folder = Path::new(root).join(&name);
            fs::create_dir(&folder).ok()?;
            let group = Self {
                peak: folder.join(peak),
                folder,
            };
            fs::write(group.folder.join(limit), LIMIT_BYTES.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have ended by now, or are ending.
        fs::remove_dir(&self.folder).ok();
    }
}

/// `tombolo serve` of a guest, started by a shell that has done `before`.
fn serve(guest_name: &str, before: &str) -> Result<Server> {
    let script = format!("{before}; exec \"$0\" serve \"$1\" --listen 127.0.0.1:0 -v");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    shell.arg(tombolo()).arg(guest(guest_name));
    shell.env_remove("RUST_BACKTRACE");
    Server::start(&mut shell)
}

async fn ask_often(server: &Server) -> Result<()> {
    for _ in 0..20 {
        let asked = (0..50).map(|_| {
            let client = server.client();
            async move { client.get("/").await }
        });
        for answer in futures_util::future::try_join_all(asked).await? {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_control_group_of_256_mb_is_enough() -> Result<()> {
    let Some(group) = Group::new() else {
        eprintln!("skipped: no memory control group can be made here");
        return Ok(());
    };
    let procs = group.folder.join("cgroup.procs");
    let server = serve("http-hello", &format!("echo $$ > {}", procs.display()))?;
    ask_often(&server).await?;
    // A kernel without `memory.peak` has proven it by not ending the process.
    if let Ok(peak) = fs::read_to_string(&group.peak) {
        let peak_bytes: u64 = peak.trim().parse().context("the peak is a number")?;
        assert!(peak_bytes <= LIMIT_BYTES, "{peak_bytes}");
    }
    drop(server);
    Ok(())
}

#[tokio::test]
async fn without_room_for_a_pool_instances_are_made_on_demand_and_that_is_said() -> Result<()> {
    // 20 GB of addresses hold four memories of 4 GiB with their guards.
    let server = serve("http-hello", "ulimit -v 20000000")?;
    ask_often(&server).await?;
    server.wait_for_log("on demand")
}
