//! `flux dmesg`: the log of the broker.

use clap::Args;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::log;
use jiff::Timestamp;

use crate::context::Context;
use crate::eventlog::{Minute, iso_local};
use crate::failure::{Failure, Outcome};
use crate::stdlog::Line;
use crate::term::{Color, paint, sgr};
use crate::{outln, output};

#[derive(Debug, Args)]
#[command(override_usage = "flux dmesg [OPTIONS...]")]
pub(crate) struct Dmesg {
    /// Clear the ring buffer
    #[arg(short = 'C', long)]
    clear: bool,
    /// Clear the ring buffer contents after printing
    #[arg(short = 'c', long)]
    read_clear: bool,
    /// Track new entries as are logged
    #[arg(short, long)]
    follow: bool,
    /// Show only new log messages
    #[arg(short, long)]
    new: bool,
    /// Human readable output
    #[arg(short = 'H', long)]
    human: bool,
    /// With --human, show timestamp delta between messages
    #[arg(short, long)]
    delta: bool,
    #[command(flatten)]
    color: Color,
}

impl Dmesg {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.delta && !self.human {
            return Err(Failure::new("--delta can only be used with --human"));
        }
        let flux = context.connect().await?;
        if !self.clear {
            let request = log::DmesgRequest { follow: self.follow, nobacklog: self.new };
            let mut stream = flux.stream::<log::Dmesg>(Nodeid::ANY, &request)?;
            let mut minute = Minute::default();
            let color = self.color.stdout();
            while let Some(line) = stream.next().await.map_err(|e| Failure::of("log.dmesg", e))? {
                outln!("{}", self.format(&line.0, color, &mut minute));
                if self.follow {
                    output::flush();
                }
            }
        }
        if self.clear || self.read_clear {
            flux.rpc::<log::Clear>(Nodeid::ANY, &Empty)
                .await
                .map_err(|e| Failure::of("log.clear", e))?;
        }
        Ok(0)
    }

    fn format(&self, text: &str, color: bool, minute: &mut Minute) -> String {
        let Some(line) = Line::parse(text) else {
            return text.to_owned();
        };
        let seconds = line.timestamp.parse::<Timestamp>().map(seconds);
        let time = match seconds {
            Ok(seconds) if self.human => minute.format(seconds, color, self.delta),
            Ok(seconds) => paint(color, sgr::GREEN, &iso_local(seconds)),
            Err(_) => paint(color, sgr::GREEN, line.timestamp),
        };
        let source = format!("{}.{}[{}]", line.app, line.severity_name(), line.host);
        let source = paint(color, sgr::YELLOW, &source);
        let message = match (color, severity_color(line.severity)) {
            (true, sequence) => format!("{sequence}{}{}", line.message, sgr::RESET),
            (false, _) => line.message.to_owned(),
        };
        format!("{time} {source}: {message}")
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

fn severity_color(severity: usize) -> &'static str {
    match severity {
        0 | 1 => sgr::REVERSE_RED,
        2 => sgr::BOLD_RED,
        3 => sgr::RED,
        4 => sgr::BOLD,
        7 => sgr::BLUE,
        _ => "",
    }
}
