//! The arguments of `queue` and its commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tombolo_core::publish::PRIORITY_LOWEST;

use super::{NodeFiles, duration};

/// Arguments of `queue`.
#[derive(Args, Debug)]
pub struct Queue {
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// What is done with queues.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List the queues in numbers
    List(List),
    /// Look at events without taking them
    Peek(Peek),
    /// Send an event, or a batch of them
    Send(Send),
    /// Publish dead letters again in the queue that they came from
    #[command(
        override_usage = "tombolo queue redrive [OPTIONS] <QUEUE> <SEQUENCE|--all|FILTERS>",
        after_help = "Example: `tombolo queue redrive readings --type 'reading.*' --before 1h`\n\
                      What several flags select fits all of them."
    )]
    Redrive(Select),
    /// Remove events
    #[command(
        override_usage = "tombolo queue purge [OPTIONS] <QUEUE> <SEQUENCE|--all|FILTERS>",
        after_help = "Example: `tombolo queue purge readings.dead --source /machine/7`\n\
                      What several flags select fits all of them."
    )]
    Purge(Select),
}

/// Arguments of `queue list`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: `tombolo queue list -o wide` adds bytes, and what has happened since the node started."
)]
pub struct List {
    #[command(flatten)]
    pub files: NodeFiles,
}

/// Arguments of `queue peek`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: `tombolo queue peek readings.dead 7` tells why event 7 became a dead letter."
)]
pub struct Peek {
    /// The queue, or app/queue; QUEUE.dead holds its dead letters
    pub queue: String,
    /// The number of the one event to show whole, with its history
    #[arg(conflicts_with_all = ["limit", "from"])]
    pub sequence: Option<u64>,
    /// Show so many events at most
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Begin with the event of this number
    #[arg(
        long,
        value_name = "SEQUENCE",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub from: u64,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// Arguments of `queue send`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: `tombolo queue send readings --type reading --subject m7 --data '{\"rpm\": 1797}'`\n\
                  An event of a source and an id that the queue has accepted before is a duplicate and not kept."
)]
pub struct Send {
    /// The queue, or app/queue
    pub queue: String,
    /// The data of the event; @FILE reads a file, - stdin
    #[arg(
        short,
        long,
        required_unless_present = "event",
        conflicts_with = "event"
    )]
    pub data: Option<String>,
    /// A CloudEvent in its JSON format, or an array of them; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "source", "subject", "id"])]
    pub event: Option<PathBuf>,
    /// What has happened [default: tombolo.queue]
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Where it has happened [default: /tombolo/queue]
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// What it has happened to
    #[arg(long)]
    pub subject: Option<String>,
    /// The id among the events of its source [default: a new one]
    #[arg(long)]
    pub id: Option<String>,
    /// Deliver it after this time, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub delay: Option<Duration>,
    /// From 0, the highest, to 9 [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=i64::from(PRIORITY_LOWEST)))]
    pub priority: Option<u8>,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// Arguments of `queue redrive` and `queue purge`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("selection").required(true).multiple(true)))]
pub struct Select {
    /// The queue, or app/queue; QUEUE.dead holds its dead letters
    pub queue: String,
    /// The event of this number
    #[arg(group = "selection", conflicts_with_all = ["source", "kind", "subject", "before"])]
    pub sequence: Option<u64>,
    /// Every event
    #[arg(long, group = "selection", conflicts_with_all = ["sequence", "source", "kind", "subject", "before"])]
    pub all: bool,
    /// Events of this source; of those that begin so with a * at the end
    #[arg(long, group = "selection", value_name = "URI")]
    pub source: Option<String>,
    /// Events of this type; of those that begin so with a * at the end
    #[arg(long = "type", group = "selection", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Events of this subject; of those that begin so with a * at the end
    #[arg(long, group = "selection")]
    pub subject: Option<String>,
    /// Events published before this moment (RFC 3339), or longer than 5m ago
    #[arg(long, group = "selection", value_name = "TIME")]
    pub before: Option<String>,
    /// Count them, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub files: NodeFiles,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Arguments, Command};
    use super::*;

    fn parse(arguments: &str) -> Option<QueueCommand> {
        let words = ["tombolo", "queue"].into_iter();
        let parsed = Arguments::try_parse_from(words.chain(arguments.split(' ')));
        match parsed.ok()?.command {
            Command::Queue(queue) => Some(queue.command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_selection_is_all_one_or_by_filters() {
        for verb in ["redrive", "purge"] {
            for right in [
                "q --all",
                "a/q.dead 7 --dry-run",
                "q --source /m/*",
                "q --type t --subject s --before 5m",
            ] {
                assert!(parse(&format!("{verb} {right}")).is_some(), "{right}");
            }
            for wrong in [
                "q",
                "q --dry-run",
                "q 7 --all",
                "q --all --type t",
                "q 7 --subject s",
                "q x",
            ] {
                assert!(parse(&format!("{verb} {wrong}")).is_none(), "{wrong}");
            }
        }
    }

    #[test]
    fn what_is_sent_is_data_or_an_event() {
        let Some(QueueCommand::Send(send)) =
            parse("send q --data - --type t --id 1 --delay 5s --priority 0")
        else {
            panic!("not understood")
        };
        assert_eq!(send.delay, Some(Duration::from_secs(5)));
        assert_eq!((send.priority, send.kind.as_deref()), (Some(0), Some("t")));
        assert!(parse("send q --event -").is_some());
        for wrong in [
            "send q",
            "send q --data x --event f",
            "send q --event f --id 1",
            "send q --data x --priority 10",
            "send q --data x --delay 5",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_look_is_at_one_event_or_at_a_page() {
        let Some(QueueCommand::Peek(peek)) = parse("peek q") else {
            panic!("not understood")
        };
        assert_eq!((peek.limit, peek.from, peek.sequence), (20, 0, None));
        assert!(parse("peek q 7").is_some());
        assert!(parse("peek q --limit 1000 --from 9").is_some());
        for wrong in [
            "peek q 7 --limit 2",
            "peek q 7 --from 2",
            "peek q --limit 0",
            "peek q --limit 1001",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
