//! Tombolo's journal behind the least socket protocol there is, so that a process boundary and loopback are on both sides of the comparison.
//!
//! A publication is its length (u32) and its number (u64), both little-endian, and the payload; the
//! answer is the number. Each publication is a transaction of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tombolo_store::Store;

use crate::load::Load;
use crate::meter::Process;
use crate::ours::Queue;

const HEAD_BYTES: usize = 12;
const BUFFER_BYTES: usize = 64 << 10;

/// Says where it listens, and serves one connection.
pub async fn serve(folder: &Path) -> Result<()> {
    let store = Store::open(folder)?;
    let queue = Queue::open(&store, 1, 1).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let (mut connection, _) = listener.accept().await?;
    connection.set_nodelay(true)?;
    let (mut reads, mut writes) = connection.split();
    let mut outstanding = FuturesUnordered::new();
    let mut input = BytesMut::with_capacity(BUFFER_BYTES);
    let mut output = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        while let Some((number, payload)) = publication(&mut input) {
            let published = queue.publish(number, 1, payload.freeze());
            outstanding.push(async move { published.await.map(|()| number) });
        }
        // All answers that are there go out in one write.
        let ready = futures_util::future::poll_immediate(outstanding.next()).await;
        if let Some(Some(number)) = ready {
            output.put_u64_le(number?);
            continue;
        }
        if !output.is_empty() {
            writes.write_all_buf(&mut output).await?;
        }
        input.reserve(BUFFER_BYTES);
        let read = std::pin::pin!(reads.read_buf(&mut input));
        if outstanding.is_empty() {
            if read.await? == 0 {
                return Ok(());
            }
            continue;
        }
        // Reading is cancel-safe, and an answer that is not taken stays.
        match select(read, outstanding.next()).await {
            Either::Left((read, _)) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            Either::Right((number, _)) => {
                if let Some(number) = number {
                    output.put_u64_le(number?);
                }
            }
        }
    }
}

fn publication(input: &mut BytesMut) -> Option<(u64, BytesMut)> {
    let length = input.get(..4)?.try_into().ok()?;
    let length = u32::from_le_bytes(length) as usize;
    if input.len() < HEAD_BYTES + length {
        return None;
    }
    input.advance(4);
    let number = input.get_u64_le();
    Some((number, input.split_to(length)))
}

/// What waits for its answer, and what waits to be sent.
#[derive(Default)]
struct Client {
    waiting: RefCell<HashMap<u64, oneshot::Sender<()>>>,
    output: RefCell<BytesMut>,
    more: Notify,
}

impl Client {
    async fn publish(&self, number: u64, payload: &[u8]) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().insert(number, answer);
        {
            let mut output = self.output.borrow_mut();
            output.put_u32_le(u32::try_from(payload.len())?);
            output.put_u64_le(number);
            output.put_slice(payload);
        }
        self.more.notify_one();
        answered.await.context("the server is gone")
    }

    async fn run(&self, mut connection: TcpStream) -> Result<()> {
        let (mut reads, mut writes) = connection.split();
        let write = async {
            loop {
                self.more.notified().await;
                let mut output = self.output.take();
                writes.write_all_buf(&mut output).await?;
            }
        };
        let read = async {
            let mut input = BytesMut::with_capacity(BUFFER_BYTES);
            while reads.read_buf(&mut input).await? > 0 {
                while input.len() >= 8 {
                    let answered = self.waiting.borrow_mut().remove(&input.get_u64_le());
                    if let Some(answered) = answered {
                        answered.send(()).ok();
                    }
                }
            }
            Ok(())
        };
        match select(std::pin::pin!(write), std::pin::pin!(read)).await {
            Either::Left((done, _)) | Either::Right((done, _)) => done,
        }
    }
}

/// Loads a server process of its own.
pub async fn publish(folder: &Path, load: Load) -> Result<Value> {
    let mut server = Server::start(folder)?;
    let connection = TcpStream::connect(server.address()?).await?;
    connection.set_nodelay(true)?;
    let client = Rc::new(Client::default());
    let payload = load.payload();
    let process = Process::with_id(server.0.id());
    let loaded = load.run(process, |number| {
        let (client, payload) = (Rc::clone(&client), payload.clone());
        async move { client.publish(number, &payload).await }
    });
    match select(
        std::pin::pin!(loaded),
        std::pin::pin!(client.run(connection)),
    )
    .await
    {
        Either::Left((result, _)) => result,
        Either::Right((ended, _)) => {
            ended?;
            anyhow::bail!("the server is gone")
        }
    }
}

/// Killed when dropped.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(folder).stdout(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    fn address(&mut self) -> Result<String> {
        let output = self.0.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(line.trim().into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
