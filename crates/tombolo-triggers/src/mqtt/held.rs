//! Output of a connection that must not leave before what it speaks of is on the disk.

use tokio::sync::watch;

use super::message::Refusal;
use super::socket::WRITE_BYTES;

/// How far the changes of kept sessions are on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durable {
    /// This change is, and so are all before it.
    pub up_to: u64,
    /// Why those that follow cannot be written now.
    pub refusal: Option<Refusal>,
}

impl Durable {
    /// None while it is not known.
    fn decides(&self, change: u64) -> Option<Result<(), Refusal>> {
        if self.up_to >= change {
            return Some(Ok(()));
        }
        self.refusal.map(Err)
    }
}

/// Resolves when a change is on the disk, at once for none (0).
///
/// # Errors
/// It cannot be written now. It will be when there is room again.
pub async fn written(durable: &mut watch::Receiver<Durable>, change: u64) -> Result<(), Refusal> {
    if change == 0 {
        return Ok(());
    }
    let decided = durable.wait_for(|durable| durable.decides(change).is_some());
    let decided = decided
        .await
        .ok()
        .and_then(|durable| durable.decides(change));
    decided.unwrap_or(Err(Refusal::Failed))
}

#[derive(Default)]
struct Batch {
    /// It leaves when this change is on the disk.
    after: u64,
    output: Vec<u8>,
}

/// What is held back. The first batch waits, the second one is filled meanwhile: so the first never waits for
/// what came later, and all leaves in its order.
pub struct Held {
    durable: watch::Receiver<Durable>,
    waiting: Option<Batch>,
    filling: Option<Batch>,
}

impl Held {
    pub fn new(durable: watch::Receiver<Durable>) -> Self {
        Self {
            durable,
            waiting: None,
            filling: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    pub fn has_room(&self) -> bool {
        let bytes = |batch: &Option<Batch>| batch.as_ref().map_or(0, |batch| batch.output.len());
        bytes(&self.waiting) + bytes(&self.filling) < WRITE_BYTES
    }

    /// Where output goes that must not leave before the change (0: none) is on the disk; none when it may leave at once.
    pub fn place(&mut self, after: u64) -> Option<&mut Vec<u8>> {
        let batch = match (&self.waiting, &self.filling) {
            (None, _) if after == 0 || self.durable.borrow().up_to >= after => return None,
            (None, _) => &mut self.waiting,
            (Some(waiting), None) if waiting.after >= after => &mut self.waiting,
            _ => &mut self.filling,
        };
        let batch = batch.get_or_insert_default();
        batch.after = batch.after.max(after);
        Some(&mut batch.output)
    }

    /// Resolves when something may leave. Cancel safe.
    ///
    /// # Errors
    /// It may not, because its change cannot be written.
    pub async fn wait(&mut self) -> Result<(), Refusal> {
        let after = self.waiting.as_ref().map_or(0, |batch| batch.after);
        written(&mut self.durable, after).await
    }

    /// Moves what may leave to `output`.
    pub fn release(&mut self, output: &mut Vec<u8>) {
        let up_to = self.durable.borrow().up_to;
        while let Some(batch) = self.waiting.take_if(|batch| batch.after <= up_to) {
            output.extend_from_slice(&batch.output);
            self.waiting = self.filling.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(held: &mut Held, output: &mut Vec<u8>, after: u64, byte: u8) {
        held.place(after).unwrap_or(output).push(byte);
    }

    #[tokio::test]
    async fn output_leaves_in_its_order_once_what_it_speaks_of_is_written() {
        let (durable, watched) = watch::channel(Durable::default());
        let up_to = |up_to| durable.send_modify(|state| state.up_to = up_to);
        let (mut held, mut output) = (Held::new(watched), Vec::new());
        put(&mut held, &mut output, 0, 1);
        put(&mut held, &mut output, 2, 2);
        put(&mut held, &mut output, 0, 3);
        put(&mut held, &mut output, 3, 4);
        put(&mut held, &mut output, 1, 5);
        put(&mut held, &mut output, 5, 6);
        assert_eq!(output, [1]);
        up_to(1);
        held.release(&mut output);
        assert_eq!(output, [1]);
        up_to(2);
        held.wait().await.unwrap();
        held.release(&mut output);
        assert_eq!(output, [1, 2, 3]);
        put(&mut held, &mut output, 6, 7);
        up_to(5);
        held.release(&mut output);
        assert_eq!(output, [1, 2, 3, 4, 5, 6]);
        durable.send_modify(|state| state.refusal = Some(Refusal::Full));
        assert_eq!(held.wait().await, Err(Refusal::Full));
        up_to(6);
        held.wait().await.unwrap();
        held.release(&mut output);
        put(&mut held, &mut output, 6, 8);
        assert_eq!(output, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(held.is_empty());
    }
}
