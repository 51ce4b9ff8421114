//! Messages as `module trace` and `overlay trace` show them.

use clap::Args;
use flux_protocol::errno::Errno;
use flux_protocol::message::typemask;
use flux_protocol::real::format_g;
use flux_protocol::rpc::module::TraceResponse;

use crate::eventlog::{Minute, local};
use crate::failure::Failure;
use crate::json_text::pretty;
use crate::term::{Color, paint, sgr};

#[derive(Debug, Args)]
pub(crate) struct TraceOptions {
    /// Show JSON message payload, if any
    #[arg(short, long)]
    pub full: bool,
    /// Filter output by message type (request, response, event, control)
    #[arg(short = 't', long = "type", value_name = "TYPE,...", value_delimiter = ',')]
    types: Vec<String>,
    #[command(flatten)]
    color: Color,
    /// Human readable output
    #[arg(short = 'H', long)]
    human: bool,
    /// With --human, show timestamp delta between messages
    #[arg(short, long)]
    delta: bool,
}

/// Shows one message after another.
#[derive(Debug)]
pub(crate) struct Tracer {
    color: bool,
    human: bool,
    minute: Minute,
    delta: bool,
}

impl TraceOptions {
    /// Bits of [`typemask`]; all of them where no type was given.
    pub(crate) fn typemask(&self) -> Result<u32, Failure> {
        let mut mask = 0;
        for name in &self.types {
            mask |= match name.as_str() {
                "request" => typemask::REQUEST,
                "response" => typemask::RESPONSE,
                "event" => typemask::EVENT,
                "control" => typemask::CONTROL,
                _ => {
                    return Err(Failure::new("valid types: request, response, event, control"));
                }
            };
        }
        let all = typemask::REQUEST | typemask::RESPONSE | typemask::EVENT | typemask::CONTROL;
        Ok(u32::from(if mask == 0 { all } else { mask }))
    }

    pub(crate) fn tracer(&self) -> Result<Tracer, Failure> {
        if self.delta && !self.human {
            return Err(Failure::new("--delta can only be used with --human"));
        }
        Ok(Tracer {
            color: self.color.stdout(),
            human: self.human,
            minute: Minute::default(),
            delta: self.delta,
        })
    }
}

impl Tracer {
    /// One message; `who` stands in front of its type.
    pub(crate) fn format(&mut self, who: &str, message: &TraceResponse) -> String {
        let time = if self.human {
            self.minute.format(message.timestamp, self.color, self.delta) + " "
        } else {
            // Cut off, not rounded.
            let millis = (message.timestamp * 1e3).floor() / 1e3;
            paint(self.color, sgr::GREEN, &local(millis, "%Y-%m-%dT%H:%M:%S%.3f"))
        };
        let size = byte_count(message.payload_size);
        let mut text = format!("{who} {} {} [{size}]", type_sign(message.kind), message.topic);
        if message.kind == u32::from(typemask::RESPONSE) {
            text.push(' ');
            text.push_str(&verdict(message.errnum));
        }
        if message.errnum > 0 {
            if !message.errstr.is_empty() {
                text.push('\n');
                text.push_str(&message.errstr);
            }
        } else if let Some(payload) = message.payload.as_ref().filter(|raw| raw.get() != "null") {
            text.push('\n');
            text.push_str(&pretty(payload, 2));
        }
        format!("{time} {}", paint(self.color, color_of(message), &text))
    }
}

fn type_sign(kind: u32) -> &'static str {
    match u8::try_from(kind) {
        Ok(typemask::REQUEST) => ">",
        Ok(typemask::RESPONSE) => "<",
        Ok(typemask::EVENT) => "e",
        Ok(typemask::CONTROL) => "c",
        _ => "?",
    }
}

fn color_of(message: &TraceResponse) -> &'static str {
    match u8::try_from(message.kind) {
        Ok(typemask::REQUEST) => sgr::BOLD_BLUE,
        Ok(typemask::RESPONSE) if message.errnum > 0 => sgr::BOLD_RED,
        Ok(typemask::RESPONSE) => sgr::CYAN,
        Ok(typemask::EVENT) => sgr::YELLOW,
        _ => sgr::BOLD,
    }
}

fn verdict(errnum: u32) -> String {
    match (errnum, Errno(errnum).name()) {
        (0, _) => "success".to_owned(),
        (_, Some(name)) => name.to_owned(),
        (_, None) => format!("errno {errnum}"),
    }
}

/// A size with at most eight digits: `111`, `1.5K`.
fn byte_count(size: u64) -> String {
    let mut value = size as f64;
    let mut units = ["", "K", "M", "G", "T", "P", "E"].iter();
    let mut unit = units.next();
    while value >= 1024.0 {
        value /= 1024.0;
        unit = units.next();
    }
    format!("{}{}", format_g(value, 8), unit.unwrap_or(&""))
}
