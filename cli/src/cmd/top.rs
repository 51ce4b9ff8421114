//! `flux top`: resources and running jobs of an instance on the whole screen, kept up to date.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt;

use super::uri::resolve;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::joblist::JobInfo;
use crate::term::When;

mod level;
mod screen;

use self::level::Level;
use self::screen::Screen;

/// Between two looks at the instance.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(override_usage = "flux-top [OPTIONS] [TARGET]")]
pub(crate) struct Top {
    /// Colorize output when supported; WHEN can be 'always' (default if omitted), 'never', or
    /// 'auto' (default).
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_value = "auto", default_missing_value = "always")]
    color: When,
    /// Limit to jobs belonging to a specific queue
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// A job id or URI of an instance
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Exit after screen initialization, for testing
    #[arg(long, hide = true)]
    test_exit: bool,
    /// With --test-exit, also write what is shown to FILE
    #[arg(long, hide = true, value_name = "FILE", requires = "test_exit")]
    test_exit_dump: Option<PathBuf>,
}

/// The terminal as it was; it becomes so again.
struct RawTerminal(Termios);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Up,
    Down,
    Left,
    Right,
    Enter,
    Back,
    Other,
}

impl Top {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new("stdin is not a terminal"));
        }
        if context.env.get("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            return Err(Failure::new("terminal does not support required capabilities"));
        }
        let flux = match &self.target {
            None => context.connect().await,
            Some(target) => {
                let uri = resolve(&context, target, false).await.map_err(|e| {
                    Failure::new(format_args!("failed to resolve target to a Flux URI\n{e}"))
                })?;
                context.connect_to(&uri).await
            }
        };
        let flux = flux.map_err(|e| e.within("connecting to Flux"))?;
        let mut levels = vec![Level::open(flux, self.queue.clone()).await];
        let mut screen = look(&mut levels).await?;
        let terminal = RawTerminal::enter()?;
        let outcome = self.follow(&context, &mut levels, &mut screen).await;
        drop(terminal);
        outcome
    }

    async fn follow(
        &self,
        context: &Context,
        levels: &mut Vec<Level>,
        screen: &mut Screen,
    ) -> Outcome {
        let mut stdin = tokio::io::stdin();
        let mut keys = [0; 32];
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            self.draw(screen);
            if self.test_exit {
                return self.dump(screen).map(|()| 0);
            }
            let count = tokio::select! {
                count = stdin.read(&mut keys) => count.unwrap_or_default(),
                _ = ticks.tick() => {
                    let seen = std::mem::take(screen);
                    let now = look(levels).await?;
                    *screen = Screen {
                        selected: seen.selected,
                        notice: now.notice.or(seen.notice),
                        ..now
                    };
                    continue;
                }
            };
            for key in Key::all(keys.get(..count).unwrap_or_default()) {
                screen.notice = None;
                Self::press(key, context, levels, screen).await?;
                if levels.is_empty() {
                    return Ok(0);
                }
            }
        }
    }

    /// No levels are left when the program is to end.
    async fn press(
        key: Key,
        context: &Context,
        levels: &mut Vec<Level>,
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        match key {
            Key::Quit => levels.clear(),
            // Out of the instance that was entered last, or of the program.
            Key::Back => {
                levels.pop();
                *screen = look(levels).await?;
            }
            Key::Up => screen.select_previous(),
            Key::Down => screen.select_next(),
            key @ (Key::Left | Key::Right) => {
                if let Some(level) = levels.last_mut()
                    && level.change_queue(key == Key::Right)
                {
                    *screen = look(levels).await?;
                }
            }
            Key::Enter => {
                let uri = screen.selected_job().and_then(JobInfo::uri);
                let Some(uri) = uri else { return Ok(()) };
                match context.connect_to(uri).await {
                    Ok(flux) => {
                        levels.push(Level::open(flux, None).await);
                        *screen = look(levels).await?;
                    }
                    Err(e) => screen.notice = Some(e.within("error connecting to Flux").line()),
                }
            }
            Key::Other => {}
        }
        Ok(())
    }

    /// Write what is shown to the file that was asked for, without what moves the cursor.
    fn dump(&self, screen: &Screen) -> Result<(), Failure> {
        let Some(path) = &self.test_exit_dump else { return Ok(()) };
        let (width, height) = terminal();
        let text = screen.lines(width, height, false).join("\n") + "\n";
        std::fs::write(path, text).map_err(|error| Failure::of(path.display(), strerror(&error)))
    }

    fn draw(&self, screen: &Screen) {
        let (width, height) = terminal();
        let mut text = String::from("\x1b[H");
        for line in screen.lines(width, height, self.color.stdout()) {
            text.push_str(&line);
            text.push_str("\x1b[K\n");
        }
        // No newline behind the last line, which would scroll.
        text.truncate(text.len().saturating_sub(1));
        text.push_str("\x1b[J");
        crate::out!("{text}");
        crate::output::flush();
    }
}

/// Its columns and lines.
fn terminal() -> (usize, usize) {
    terminal_size::terminal_size()
        .map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// Ask the innermost instance. When it has ended, the one around it.
async fn look(levels: &mut Vec<Level>) -> Result<Screen, Failure> {
    let mut notice = None;
    while let Some(level) = levels.last() {
        match level.look(levels.len() - 1).await {
            Ok(screen) => return Ok(Screen { notice, ..screen }),
            Err(e) if levels.len() > 1 => {
                notice = Some(e.within("the instance does not answer any more").line());
                levels.pop();
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Screen::default())
}

impl Key {
    /// What was typed since the terminal was read last.
    fn all(mut bytes: &[u8]) -> Vec<Key> {
        let mut keys = vec![Key::of(bytes)];
        loop {
            let length = match bytes {
                [0x1b, b'[' | b'O', _, ..] => 3,
                _ => 1,
            };
            bytes = bytes.get(length..).unwrap_or_default();
            if bytes.is_empty() {
                return keys;
            }
            keys.push(Key::of(bytes));
        }
    }

    fn of(bytes: &[u8]) -> Key {
        match bytes {
            // No terminal any more.
            [] | [3 | 4, ..] => Key::Quit,
            [b'q' | 0x7f, ..] | [0x1b] => Key::Back,
            [b'k', ..] | [0x1b, b'[' | b'O', b'A', ..] => Key::Up,
            [b'j', ..] | [0x1b, b'[' | b'O', b'B', ..] => Key::Down,
            [b'h', ..] | [0x1b, b'[' | b'O', b'D', ..] => Key::Left,
            [b'l', ..] | [0x1b, b'[' | b'O', b'C', ..] => Key::Right,
            [b'\r' | b'\n', ..] => Key::Enter,
            _ => Key::Other,
        }
    }
}

impl RawTerminal {
    /// Keys come one by one, on a screen of their own without a cursor.
    fn enter() -> Result<RawTerminal, Failure> {
        let failed = |e: nix::errno::Errno| Failure::of("terminal", e.desc());
        let saved = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = saved.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).map_err(failed)?;
        crate::out!("\x1b[?1049h\x1b[?25l");
        Ok(RawTerminal(saved))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Whether or not the terminal is still there.
        let _ = std::io::stdout().lock().write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_several_spellings() {
        assert_eq!(Key::of(b"\x1b[A"), Key::Up);
        assert_eq!(Key::of(b"j"), Key::Down);
        assert_eq!(Key::of(b"\r"), Key::Enter);
        assert_eq!(Key::of(b"\x1b"), Key::Back);
        assert_eq!(Key::of(b"q"), Key::Back);
        assert_eq!(Key::of(b"h"), Key::of(b"\x1b[D"));
        assert_eq!(Key::of(b"\x1bOC"), Key::Right);
        assert_eq!(Key::of(b""), Key::Quit);
        assert_eq!(Key::of(b"x"), Key::Other);
    }

    #[test]
    fn keys_may_come_together() {
        assert_eq!(Key::all(b"\x1b[Bj\rq"), [Key::Down, Key::Down, Key::Enter, Key::Back]);
        assert_eq!(Key::all(b"\x1b"), [Key::Back]);
        assert_eq!(Key::all(b""), [Key::Quit]);
    }
}
