//! The terminal: its size, its keys, a page of its own, and what it was before.
//! # Invariants: whatever is changed here is changed back when a [`Screen`] is dropped.
//! # Not here: what is drawn (`view`).

use super::view::{self, Line, State, Style};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use tokio::sync::mpsc;

/// The size of a terminal that does not tell its own.
const SIZE: (usize, usize) = (80, 24);

/// The other page of the terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// A page of the terminal that is ours for a while.
pub(super) struct Screen {
    /// How keys were read before, if there is a keyboard.
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be written to.
    pub(super) fn open() -> io::Result<Screen> {
        let before = io::stdin().is_terminal().then(|| tcgetattr(io::stdin()).ok()).flatten();
        if let Some(before) = &before {
            let mut modes = before.clone();
            // Keys as they are pressed, and not shown; Ctrl-C stays a signal.
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(io::stdin(), OptionalActions::Now, &modes)?;
        }
        let screen = Screen { before };
        super::super::put(ENTER.as_bytes())?;
        Ok(screen)
    }

    /// Draws the state, as large as the terminal is now.
    ///
    /// # Errors
    /// It cannot be written to.
    #[expect(clippy::unused_self, reason = "only while there is a screen may it be drawn on")]
    pub(super) fn draw(&mut self, state: &State<'_>) -> io::Result<()> {
        let (width, height) = size();
        super::super::put(page(&view::lines(state, width, height)).as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        super::super::put(LEAVE.as_bytes()).unwrap_or_default();
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Now, before).unwrap_or_default();
        }
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

/// What draws these lines over what was there, without a flicker.
fn page(lines: &[Line]) -> String {
    let mut page = String::from("\x1b[H");
    for (index, line) in lines.iter().enumerate() {
        let (begin, end) = match line.style {
            Style::Plain => ("", ""),
            Style::Title => ("\x1b[7m", "\x1b[0m"),
            Style::Head => ("\x1b[1m", "\x1b[0m"),
            Style::Problem => ("\x1b[31m", "\x1b[0m"),
        };
        let newline = if index == 0 { "" } else { "\r\n" };
        // Writing to a string does not fail.
        write!(page, "{newline}{begin}{}{end}\x1b[K", line.text).unwrap_or_default();
    }
    page.push_str("\x1b[J");
    page
}

/// The keys that are pressed. The thread that waits for them ends with the process.
pub(super) fn keys() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(16);
    let read = move || {
        let mut key = [0];
        while let Ok(1) = io::stdin().lock().read(&mut key) {
            if sender.blocking_send(key[0]).is_err() {
                return;
            }
        }
    };
    if io::stdin().is_terminal() {
        // Without a thread there are no keys, and signals end it.
        drop(std::thread::Builder::new().name("keys".to_owned()).spawn(read));
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_drawn_over_the_one_before() {
        let line = |text: &str, style| Line { text: text.to_owned(), style };
        let lines = [line("top", Style::Title), line("a", Style::Plain), line("b", Style::Head)];
        let expected = "\x1b[H\x1b[7mtop\x1b[0m\x1b[K\r\na\x1b[K\r\n\x1b[1mb\x1b[0m\x1b[K\x1b[J";
        assert_eq!(page(&lines), expected);
    }
}
