//! A server that we start, ask questions on loopback, and end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, program};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    /// Copies standard error until the server closes it.
    log: Option<thread::JoinHandle<()>>,
}

/// The answer to one question.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Server {
    /// Starts a `tombolo`, whose first line on standard error holds `http://HOST:PORT` as bound.
    pub fn announced(command: &mut Command) -> Result<Self> {
        let mut child = spawn(command.stderr(Stdio::piped()))?;
        let stderr = child
            .stderr
            .take()
            .context("standard error is not a pipe")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut seen = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else {
                let status = child.wait()?;
                bail!(
                    "the server ended with {status} before it listened:\n{}",
                    seen.join("\n")
                );
            };
            let line = line.context("cannot read the server's standard error")?;
            if let Some(address) = announced_address(&line) {
                break address;
            }
            seen.push(line);
        };
        let log = thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("  {line}"));
        });
        Ok(Self {
            child,
            address,
            log: Some(log),
        })
    }

    /// Starts a server that was told to listen at `address`, and waits for its first answer.
    pub fn listening(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let child = spawn(command.stderr(Stdio::null()))?;
        let mut server = Self {
            child,
            address,
            log: None,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match server.ask("/") {
                Ok(_) => return Ok(server),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended with {status} before it listened");
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// One GET on a connection of its own.
    pub fn ask(&self, path: &str) -> Result<Answer> {
        let address = self.address;
        let mut connection =
            TcpStream::connect(address).with_context(|| format!("nobody listens at {address}"))?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        )?;
        let mut text = Vec::new();
        connection.read_to_end(&mut text)?;
        parse_answer(&String::from_utf8_lossy(&text))
    }

    /// Asks the server to drain, and fails when it does not end with exit code 0.
    pub fn drain(mut self) -> Result<()> {
        let process_id = self.child.id().to_string();
        process::run(&mut program("kill", &["-TERM", &process_id], "."))?;
        let status = self.child.wait()?;
        if let Some(log) = self.log.take() {
            log.join().ok();
        }
        if !status.success() {
            bail!("the server ended with {status} after SIGTERM");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the server has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An address on loopback that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn spawn(command: &mut Command) -> Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {name}"))
}

fn announced_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest
        .find(|character: char| !character.is_ascii_hexdigit() && !".:[]".contains(character))
        .unwrap_or(rest.len());
    rest.get(..end)?.trim_end_matches(['.', ':']).parse().ok()
}

fn parse_answer(text: &str) -> Result<Answer> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("the answer has no status")?;
    Ok(Answer {
        status,
        body: body.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_first_line() {
        let line = "listening on http://127.0.0.1:3000 (1 app)";
        assert_eq!(announced_address(line), "127.0.0.1:3000".parse().ok());
        let line = "ready at http://[::1]:80/";
        assert_eq!(announced_address(line), "[::1]:80".parse().ok());
        assert_eq!(announced_address("compiling"), None);
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse_answer("HTTP/1.1 404 Not Found\r\nx: y\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "no"));
        assert!(parse_answer("nonsense").is_err());
    }
}
