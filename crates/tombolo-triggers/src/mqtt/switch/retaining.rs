//! Retained messages in memory, as far as there is room.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Switch;
use crate::mqtt::message::Message;

impl Switch {
    /// Retains a message in place of the one before, or forgets that one, as far as there is room.
    pub fn retain(&mut self, message: &Arc<Message>, now: Instant) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.figures.retained_bytes -= old.weight_bytes();
        }
        if message.payload.is_empty() {
            return;
        }
        if !self.has_room_to_retain(message) {
            self.sweep(now);
        }
        if self.has_room_to_retain(message) {
            self.figures.retained_bytes += message.weight_bytes();
            self.retained.insert(message.topic.clone(), message.clone());
        } else {
            self.figures.unretained += 1;
        }
    }

    fn has_room_to_retain(&self, message: &Message) -> bool {
        self.retained.len() < self.bounds.retained_max
            && self.figures.retained_bytes + message.weight_bytes()
                <= self.bounds.retained_bytes_max
    }

    /// Forgets retained messages whose time is over; once in a while, because it looks at all.
    fn sweep(&mut self, now: Instant) {
        let lately = self
            .retained_swept
            .is_some_and(|at| now < at + Duration::from_secs(10));
        if lately {
            return;
        }
        self.retained_swept = Some(now);
        let freed = &mut self.figures.retained_bytes;
        self.retained.retain(|_, message| {
            let stays = !message.is_expired(now);
            if !stays {
                *freed -= message.weight_bytes();
            }
            stays
        });
    }
}
