//! Sessions on the disk: read when the node starts, and what changes of them written, in its order.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tombolo_store::{KeyValue, StoreError, Write};

use super::broker::Shared;
use super::changes::Change;
use super::held::Durable;
use super::message::Refusal;
use super::stored::{Moment, Reading, read_all};

/// What is written at once is about so much.
const GROUP_BYTES: usize = 4 << 20;
/// One change of many sessions is written in pieces when it is longer than this.
const GROUP_BYTES_MAX: usize = 12 << 20;
/// After a write that failed, the next try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the store adds to a key at most: the names of the node and the store.
const PREFIX_BYTES_MAX: usize = 64;

/// Reads the sessions that are on the disk.
pub fn read(memory: &KeyValue) -> Result<Reading, StoreError> {
    let mut reading = Reading::new(Moment::new());
    read_all(memory, |key, value| reading.record(key, value.as_deref()))?;
    Ok(reading)
}

/// Takes the changes of kept sessions to the disk.
pub struct SessionWriter {
    shared: Arc<Shared>,
    memory: KeyValue,
    /// Keys of what belongs to no session. They are deleted before anything is written: a session may get the
    /// number of one that is over.
    gone: Vec<String>,
}

/// Tells who waits that nobody writes any more.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let refusal = Some(Refusal::Failed);
        self.0
            .durable
            .send_modify(|durable| durable.refusal = refusal);
    }
}

impl SessionWriter {
    pub(super) fn new(shared: Arc<Shared>, memory: KeyValue, gone: Vec<String>) -> Self {
        Self {
            shared,
            memory,
            gone,
        }
    }

    /// Writes until it is told to stop, and then what there is. From then on, what needs a kept session is refused.
    pub async fn run(mut self, stop: CancellationToken) {
        let gone = std::mem::take(&mut self.gone);
        let _ending = Ending(&self.shared);
        let deletes = gone.into_iter().map(|key| Write::Delete { key });
        if self.commit(deletes.collect(), 0, &stop).await.is_err() {
            return;
        }
        let wake = self.shared.switch().changes.wake();
        loop {
            let stopping = stop.is_cancelled();
            let changes = self.shared.switch().changes.take();
            if !changes.is_empty() {
                if self.write(changes, &stop).await.is_err() {
                    return;
                }
            } else if stopping {
                return;
            } else {
                tokio::select! {
                    () = wake.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Writes changes, those with one number in one piece.
    async fn write(
        &self,
        changes: Vec<(u64, Change)>,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let (mut group, mut bytes, mut up_to) = (Vec::new(), 0, 0);
        for (number, change) in changes {
            if number != up_to && bytes >= GROUP_BYTES {
                self.commit(std::mem::take(&mut group), up_to, stop).await?;
                bytes = 0;
            }
            let before = group.len();
            change.writes(Moment::new(), &mut group);
            bytes += group.iter().skip(before).map(bytes_of).sum::<usize>();
            up_to = number;
        }
        self.commit(group, up_to, stop).await
    }

    /// Writes a group, however often it has to be tried, and says so.
    async fn commit(
        &self,
        group: Vec<Write>,
        up_to: u64,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        for piece in pieces(group) {
            while let Err(error) = self.memory.write(piece.clone()).await {
                let refusal = match error {
                    StoreError::Full | StoreError::KeysFull { .. } => Refusal::Full,
                    _ => Refusal::Failed,
                };
                let before = self.shared.durable.borrow().refusal;
                if before != Some(refusal) {
                    tracing::error!(%error, "mqtt sessions cannot be written; what needs them is refused");
                }
                let tell = |durable: &mut Durable| durable.refusal = Some(refusal);
                self.shared.durable.send_modify(tell);
                let pause = tokio::time::sleep(RETRY_AFTER);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return Err(error);
                }
            }
        }
        let written = Durable {
            up_to,
            refusal: None,
        };
        if self.shared.durable.send_replace(written).refusal.is_some() {
            tracing::info!("mqtt sessions are written again");
        }
        Ok(())
    }
}

fn bytes_of(write: &Write) -> usize {
    PREFIX_BYTES_MAX
        + match write {
            Write::Set { key, value } => key.len() + value.len(),
            Write::Delete { key } => key.len(),
        }
}

/// A group as it can be written: nearly always in one piece.
fn pieces(group: Vec<Write>) -> Vec<Vec<Write>> {
    let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
    for write in group {
        bytes += bytes_of(&write);
        if bytes > GROUP_BYTES_MAX {
            bytes = bytes_of(&write);
            pieces.push(Vec::new());
        }
        if let Some(last) = pieces.last_mut() {
            last.push(write);
        }
    }
    pieces
}
