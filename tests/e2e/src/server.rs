//! A `tombolo` process that serves, known by the address that it says on standard error.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{Client, command, guest};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A serving process; killed when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    before: String,
    log: Arc<Log>,
}

struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Server {
    /// `tombolo serve` with a guest, by its name.
    pub fn serve(guest_name: &str, arguments: &[&str]) -> Result<Self> {
        let component = guest(guest_name);
        let mut command = command();
        command.arg("serve").arg(component);
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::start(&mut command)
    }

    /// Starts the command and waits until it says where it listens.
    pub fn start(command: &mut std::process::Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped())
            .spawn()
            .context("the binary cannot be started")?;
        let stderr = child.stderr.take().context("stderr is no pipe")?;
        let mut lines = BufReader::new(stderr);
        let mut before = String::new();
        let address = loop {
            let start = before.len();
            if lines.read_line(&mut before)? == 0 {
                let status = child.wait()?;
                bail!("no address, and then {status}:\n{before}");
            }
            if let Some(address) = announced(before.get(start..).unwrap_or_default()) {
                before.truncate(start);
                break address;
            }
        };
        let log = Arc::new(Log {
            text: Mutex::new(before.clone()),
            grown: Condvar::new(),
        });
        let writer = Arc::clone(&log);
        // Ends with the pipe, which ends with the process.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut text = writer.text.lock().expect("no holder of the lock panics");
                text.push_str(&line);
                text.push('\n');
                writer.grown.notify_all();
            }
        });
        Ok(Self {
            child,
            address,
            before,
            log,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of HTTP/1.1 for this server.
    pub fn client(&self) -> Client {
        Client::http1(self.address)
    }

    /// A client of HTTP/2 without TLS for this server.
    pub fn client_http2(&self) -> Client {
        Client::http2(self.address)
    }

    /// What the process wrote on standard error before it said where it listens.
    pub fn before_address(&self) -> &str {
        &self.before
    }

    /// What the process has written on standard error so far, but for the line with the address.
    pub fn log(&self) -> String {
        let text = self.log.text.lock().expect("no holder of the lock panics");
        text.clone()
    }

    /// Waits until `needle` is on standard error.
    pub fn wait_for_log(&self, needle: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.log.text.lock().expect("no holder of the lock panics");
        while !text.contains(needle) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("`{needle}` does not come on standard error:\n{text}");
            }
            let (guard, _) = self
                .log
                .grown
                .wait_timeout(text, left)
                .expect("no holder of the lock panics");
            text = guard;
        }
        Ok(())
    }

    /// Asks the process to drain, without waiting for it.
    pub fn terminate(&self) -> Result<()> {
        self.signal("TERM")
    }

    /// Sends the process a signal, by its name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = std::process::Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("kill failed with {status}");
        }
        Ok(())
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the process does not end:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The `HOST:PORT` behind `http://` in a line.
fn announced(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest
        .find(|c: char| c.is_whitespace() || c == '/')
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}
