//! Plays a vector against a broker.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use flux_protocol::message::{Flags, Kind, Message};

use crate::compare::{Bindings, Comparison, same_place};
use crate::connection::Connection;
use crate::rules::Rules;
use crate::vector::{Direction, Row, Run, Vector, What};

/// How long an answer may take before it counts as missing.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One vector that is played against one instance.
pub struct Replay<'a> {
    vector: &'a Vector,
    socket: Box<dyn Fn(u32) -> PathBuf + 'a>,
    comparison: Comparison,
    skipped: Vec<(String, String)>,
    ignored: Vec<Ignore>,
    before: Option<Hook<'a>>,
    timeout: Duration,
    connections: BTreeMap<(u32, u64), Connection>,
    /// Requests that were not sent: their answers are not expected.
    unsent: HashSet<(u32, u64, u32, String)>,
    report: Report,
}

type Ignore = Box<dyn Fn(&Row, &Message) -> bool>;
type Hook<'a> = Box<dyn Fn(usize) -> Pin<Box<dyn Future<Output = ()> + 'a>> + 'a>;

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages that were compared and found equal.
    pub equal: usize,
    /// One line per difference: `NAME.jsonl:LINE TOPIC: WHAT`.
    pub differences: Vec<String>,
}

// === impl Report ===

impl Report {
    /// Fail the test when anything differs, or when nothing was compared.
    #[expect(clippy::panic, reason = "the assertion of tests")]
    pub fn assert_equal(&self) {
        if !self.differences.is_empty() {
            let mut text = format!("{} differences:\n", self.differences.len());
            for difference in &self.differences {
                let _ = writeln!(text, "  {difference}");
            }
            panic!("{text}");
        }
        assert!(self.equal > 0, "nothing was compared");
    }
}

// === impl Replay ===

impl std::fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("vector", &self.vector.name).finish_non_exhaustive()
    }
}

impl<'a> Replay<'a> {
    /// Play against the broker that listens at `socket`.
    pub fn new(vector: &'a Vector, rules: Rules, socket: &'a Path) -> Replay<'a> {
        Replay::on_ranks(vector, rules, move |_| socket.to_owned())
    }

    /// Play against the brokers of an instance, each at its own socket.
    pub fn on_ranks(
        vector: &'a Vector,
        rules: Rules,
        socket: impl Fn(u32) -> PathBuf + 'a,
    ) -> Replay<'a> {
        Replay {
            vector,
            socket: Box::new(socket),
            comparison: Comparison::new(rules),
            skipped: Vec::new(),
            ignored: Vec::new(),
            before: None,
            timeout: TIMEOUT,
            connections: BTreeMap::new(),
            unsent: HashSet::new(),
            report: Report::default(),
        }
    }

    /// Leave out the commands that begin with `command`, for a reason.
    pub fn skip_run(mut self, command: &str, reason: &str) -> Replay<'a> {
        self.skipped.push((command.to_owned(), reason.to_owned()));
        self
    }

    /// Neither send nor expect the messages for which `ignore` holds, nor the answers to those
    /// that were not sent.
    pub fn ignore(mut self, ignore: impl Fn(&Row, &Message) -> bool + 'static) -> Replay<'a> {
        self.ignored.push(Box::new(ignore));
        self
    }

    /// Neither send nor expect messages with this topic.
    pub fn ignore_topic(self, topic: &str) -> Replay<'a> {
        let topic = topic.to_owned();
        self.ignore(move |_, message| *message.topic == topic)
    }

    /// Do something before each line of the file, known by its number: what happened at that time
    /// and is not in the file.
    pub fn before<F: Future<Output = ()> + 'a>(mut self, hook: impl Fn(usize) -> F + 'a) -> Self {
        self.before = Some(Box::new(move |line| Box::pin(hook(line))));
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Replay<'a> {
        self.timeout = timeout;
        self
    }

    /// Values that stand for captured ones; see [`Bindings`].
    pub fn bindings(&self) -> Bindings {
        self.comparison.bindings()
    }

    pub async fn play(mut self) -> Report {
        for run in &self.vector.runs {
            if !self.skipped.iter().any(|(command, _)| run.command.starts_with(command)) {
                self.run(run).await;
            }
        }
        self.report
    }

    async fn run(&mut self, run: &Run) {
        for row in &run.rows {
            if let Some(before) = &self.before {
                before(row.line).await;
            }
            if let Err(error) = self.row(row).await {
                self.differ(row, &error.to_string());
            }
        }
    }

    async fn row(&mut self, row: &Row) -> std::io::Result<()> {
        match (&row.what, row.direction) {
            (What::Auth(byte), _) => self.open(row, *byte).await,
            (What::Eof, Direction::ToBroker) => {
                self.close(row);
                Ok(())
            }
            (What::Eof, Direction::ToClient) => Ok(()),
            (What::Message(message), _) if self.is_ignored(row, message) => Ok(()),
            (What::Message(message), Direction::ToBroker) => self.send(row, message).await,
            (What::Message(message), Direction::ToClient) => self.expect(row, message).await,
        }
    }

    async fn open(&mut self, row: &Row, captured: u8) -> std::io::Result<()> {
        match Connection::open(&(self.socket)(row.rank)).await? {
            Ok(connection) => {
                self.connections.insert((row.rank, row.conn), connection);
                if captured != 0 {
                    self.differ(row, &format!("captured refusal {captured}, now connected"));
                }
            }
            Err(byte) if byte == captured => self.report.equal += 1,
            Err(byte) => self.differ(row, &format!("captured {captured}, now refused: {byte}")),
        }
        Ok(())
    }

    /// What has come beyond what was expected is a difference.
    fn close(&mut self, row: &Row) {
        let Some(connection) = self.connections.remove(&(row.rank, row.conn)) else { return };
        for message in connection.received {
            let Message { topic, .. } = &message;
            if !self.ignored.iter().any(|ignore| ignore(row, &message)) {
                self.differ(row, &format!("unexpected: {topic} errnum {}", message.errnum()));
            }
        }
    }

    fn is_ignored(&mut self, row: &Row, message: &Message) -> bool {
        let tag = message.matchtag().0;
        let place = (row.rank, row.conn, tag, message.topic.as_str().to_owned());
        let ignored = self.ignored.iter().any(|ignore| ignore(row, message));
        match row.direction {
            Direction::ToBroker if ignored => {
                self.unsent.insert(place);
            }
            Direction::ToBroker => {
                self.unsent.remove(&place);
            }
            Direction::ToClient => return ignored || self.unsent.contains(&place),
        }
        ignored
    }

    async fn send(&mut self, row: &Row, captured: &Message) -> std::io::Result<()> {
        let mut message = self.comparison.to_send(captured);
        let Some(connection) = self.connections.get_mut(&(row.rank, row.conn)) else {
            return Err(std::io::Error::other("the connection is not open"));
        };
        if let Kind::Response { .. } = message.kind {
            // The answer of a service that the client registered goes the way the request came.
            let request = connection.answered(&message);
            message.routes = request.map(|request| request.routes).unwrap_or_default();
        }
        connection.send(&message).await
    }

    async fn expect(&mut self, row: &Row, captured: &Message) -> std::io::Result<()> {
        let topic = captured.topic.clone();
        let Some(connection) = self.connections.get_mut(&(row.rank, row.conn)) else {
            return Err(std::io::Error::other("the connection is not open"));
        };
        let comparison = &mut self.comparison;
        let mut expected = captured.clone();
        expected.topic = comparison.to_send(captured).topic;
        let mut message = None;
        if comparison.is_unordered(&topic) {
            message = connection
                .next(self.timeout, |message| {
                    same_place(&expected, message)
                        && comparison.compare(&expected, message).is_empty()
                })
                .await?;
        }
        if message.is_none() {
            let wanted = |message: &Message| same_place(&expected, message);
            message = connection.next(self.timeout, wanted).await?;
        }
        let Some(message) = message else {
            self.differ(row, "no answer");
            return Ok(());
        };
        let found = comparison.compare(&expected, &message);
        if message.typemask() == flux_protocol::message::typemask::REQUEST
            && !message.flags.contains(Flags::NORESPONSE)
        {
            connection.open_requests.push(message);
        }
        if found.is_empty() {
            self.report.equal += 1;
        }
        for difference in found {
            self.differ(row, &difference);
        }
        Ok(())
    }

    fn differ(&mut self, row: &Row, what: &str) {
        let topic = match &row.what {
            What::Message(message) => message.topic.as_str(),
            _ => "connection",
        };
        let name = &self.vector.name;
        self.report.differences.push(format!("{name}.jsonl:{} {topic}: {what}", row.line));
    }
}
