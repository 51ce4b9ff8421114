//! Lines of the log (RFC 5424), with Flux's way to number severities.

/// Names by number.
pub(crate) const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// A line of the log, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// 0 to 7, the lower the worse.
    pub severity: usize,
    pub timestamp: &'a str,
    /// The rank of the broker.
    pub host: &'a str,
    pub app: &'a str,
    pub message: &'a str,
}

impl<'a> Line<'a> {
    /// `<PRI>1 TIMESTAMP HOST APP PROCID MSGID SD MESSAGE`
    pub(crate) fn parse(line: &'a str) -> Option<Line<'a>> {
        let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
        // Flux shifts the severity, not the facility.
        let severity = priority.parse::<usize>().ok()? >> 3;
        let mut fields = rest.splitn(7, ' ');
        let (_version, timestamp, host, app) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (_procid, _msgid) = (fields.next()?, fields.next()?);
        let message = skip_structured_data(fields.next()?)?;
        Some(Line { severity: severity.min(SEVERITIES.len() - 1), timestamp, host, app, message })
    }

    pub(crate) fn severity_name(&self) -> &'static str {
        SEVERITIES.get(self.severity).copied().unwrap_or_default()
    }

    /// A line of this process.
    pub(crate) fn encode(&self) -> String {
        format!(
            "<{}>1 {} {} {} {} - - {}",
            self.severity << 3,
            self.timestamp,
            self.host,
            self.app,
            std::process::id(),
            self.message
        )
    }
}

/// `-`, or elements in brackets, up to the blank behind it.
fn skip_structured_data(text: &str) -> Option<&str> {
    let mut level = 0;
    let end = text.find(|c| {
        match c {
            '[' => level += 1,
            ']' => level -= 1,
            _ => {}
        }
        c == ' ' && level == 0
    })?;
    text.get(end + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = "<56>1 2026-11-22T15:18:09.758452Z 0 broker 13270 - [a b=\"c d\"] insmod config";
        let line = Line::parse(line).unwrap();
        assert_eq!((line.severity_name(), line.host, line.app), ("debug", "0", "broker"));
        assert_eq!(line.timestamp, "2026-11-22T15:18:09.758452Z");
        assert_eq!(line.message, "insmod config");
        assert_eq!(Line::parse("no log line"), None);
    }
}
