//! A small disk of a test's own, in a mount namespace that lives as long as the value.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::command;

/// The disk; gone with everything on it when dropped.
pub struct SmallDisk {
    /// Keeps the namespace alive while its standard input is open.
    holder: Child,
    folder: TempDir,
}

impl SmallDisk {
    /// A disk of so many MiB; none, with a message, where this machine lets no test mount one.
    pub fn mount(mebibytes: u32) -> Result<Option<Self>> {
        let folder = TempDir::new()?;
        let script =
            format!("mount -t tmpfs -o size={mebibytes}m tmpfs \"$0\" && echo ready && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("unshare cannot be started")?;
        let mut ready = String::new();
        let stdout = holder.stdout.take().context("stdout is no pipe")?;
        BufReader::new(stdout).read_line(&mut ready)?;
        let disk = Self { holder, folder };
        if ready.trim() != "ready" || disk.outside().metadata().is_err() {
            eprintln!("skipped: this machine lets no test mount a disk (unshare --user --mount)");
            return Ok(None);
        }
        Ok(Some(disk))
    }

    /// The disk's folder as processes within the namespace see it.
    pub fn inside(&self) -> &Path {
        self.folder.path()
    }

    /// The same folder as this process sees it.
    pub fn outside(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        let below = self.folder.path().strip_prefix("/");
        Path::new(&root).join(below.unwrap_or(self.folder.path()))
    }

    /// `tombolo` within the namespace.
    pub fn command(&self) -> Command {
        let mut within = self.within();
        let tombolo = command();
        within.arg(tombolo.get_program());
        for (name, value) in tombolo.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within
    }

    /// Makes the disk read-only, or writable again.
    pub fn remount(&self, how: &str) -> Result<()> {
        let how = format!("remount,{how}");
        let mut mount = self.within();
        mount.args(["mount", "-o", &how]).arg(self.inside());
        let output = mount.output()?;
        if !output.status.success() {
            bail!("{how}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Fills the disk but for so many bytes.
    pub fn fill(&self, but_bytes: u64) -> Result<PathBuf> {
        let ballast = self.outside().join("ballast");
        let free = self.free_bytes()?;
        std::fs::write(
            &ballast,
            vec![1; usize::try_from(free.saturating_sub(but_bytes))?],
        )?;
        Ok(ballast)
    }

    fn free_bytes(&self) -> Result<u64> {
        let output = self
            .within()
            .args(["df", "--output=avail", "--block-size=1"])
            .arg(self.inside())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let bytes = text.lines().last().context("df tells nothing")?;
        Ok(bytes.trim().parse()?)
    }

    fn within(&self) -> Command {
        let mut command = Command::new("nsenter");
        let target = format!("--target={}", self.holder.id());
        command.args([&target, "--user", "--mount", "--preserve-credentials"]);
        command.arg(OsStr::new("--"));
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
