//! `weft stat --watch` on a terminal: the table in place, asked anew every few seconds.
//!
//! Invariant: the terminal is given back as it was: at q, at Ctrl-C, when told to end, on an error and on a panic.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, TableState};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::page::{self, HEAD, Shape};
use super::{Answer, Asking};

/// How long the keyboard is waited for before it is looked whether anybody still reads it.
/// Source: Weft's own; nobody sees the delay at the end.
const LOOK: Duration = Duration::from_millis(100);
/// Below this share of successes a line is marked. Source: Weft's own.
const WELL: f64 = 99.0;

/// Whether there is a terminal to draw on.
pub(super) fn is_possible() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Draws until told to end.
pub(super) async fn run(asking: &Asking, every: Duration, shape: Shape) -> anyhow::Result<()> {
    // Asked once before: an error is read better on an ordinary screen.
    let answer = asking.ask().await?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    // Sets a panic hook that gives the terminal back.
    let terminal = ratatui::try_init().context("taking the terminal")?;
    let mut screen = Screen { terminal, answer, problem: None, rows: TableState::default(), shape };
    let mut keys = keyboard();
    let watching = async {
        screen.draw()?;
        let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                key = keys.recv() => match key {
                    Some(Key::End) | None => return Ok(()),
                    Some(key) => screen.moved(key),
                },
                _ = timer.tick() => screen.take(asking.ask().await),
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
            screen.draw()?;
        }
    };
    let end: anyhow::Result<()> = watching.await;
    ratatui::restore();
    end
}

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Up,
    Down,
    Wide,
    Redraw,
    End,
}

/// Reads the keyboard on a thread of its own, as long as somebody listens.
fn keyboard() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let key = match event::poll(LOOK) {
                Ok(false) => continue,
                Ok(true) => event::read().ok().and_then(|event| meant(&event)),
                Err(_) => Some(Key::End),
            };
            if let Some(key) = key
                && sender.blocking_send(key).is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn meant(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::End),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::End),
            KeyCode::Char('w') => Some(Key::Wide),
            KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
            KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
            _ => None,
        },
        _ => None,
    }
}

struct Screen {
    terminal: DefaultTerminal,
    answer: Answer,
    /// Why the last question was not answered; what is shown is older.
    problem: Option<String>,
    rows: TableState,
    shape: Shape,
}

impl Screen {
    fn take(&mut self, asked: anyhow::Result<Answer>) {
        match asked {
            Ok(answer) => (self.answer, self.problem) = (answer, None),
            Err(error) => self.problem = Some(format!("{error:#}")),
        }
    }

    fn moved(&mut self, key: Key) {
        match key {
            Key::Up => self.rows.select_previous(),
            Key::Down => self.rows.select_next(),
            Key::Wide if self.shape == Shape::Wide => self.shape = Shape::Text,
            Key::Wide => self.shape = Shape::Wide,
            Key::Redraw | Key::End => {}
        }
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let cells = page::cells(&self.answer, self.shape);
        let (answer, problem, rows) = (&self.answer, &self.problem, &mut self.rows);
        let drawn = self.terminal.draw(|frame| {
            let mut below: Vec<Line<'_>> = page::notes(answer).into_iter().map(Line::from).collect();
            if let Some(problem) = problem {
                let marked = Style::new().fg(Color::Red);
                below.push(Line::styled(format!("older than it looks: {problem}"), marked));
            }
            below.push(Line::styled("q ends, w wide, arrows scroll", Style::new().fg(Color::DarkGray)));
            let height = u16::try_from(below.len()).unwrap_or(u16::MAX);
            let [table, notes] =
                Layout::vertical([Constraint::Min(3), Constraint::Length(height)]).areas(frame.area());
            frame.render_stateful_widget(shown(&cells), table, rows);
            frame.render_widget(Paragraph::new(below), notes);
        });
        drawn.map(|_| ()).context("drawing")
    }
}

fn shown(cells: &[Vec<String>]) -> Table<'_> {
    let widths = (0..cells.first().map_or(0, Vec::len)).map(|column| {
        let widest = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        Constraint::Length(u16::try_from(widest.unwrap_or(0)).unwrap_or(u16::MAX))
    });
    let mut rows = cells.iter();
    let head = rows.next().map(|head| Row::new(head.iter().map(String::as_str)));
    let rows = rows.map(|row| {
        let style = if is_ill(row) { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new(row.iter().map(String::as_str)).style(style)
    });
    Table::new(rows, widths)
        .header(head.unwrap_or_default().style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

/// Whether too much of a line fails.
fn is_ill(row: &[String]) -> bool {
    let at = HEAD.iter().position(|name| *name == "success");
    let success = at.and_then(|at| row.get(at)).and_then(|cell| cell.strip_suffix('%'));
    success.and_then(|text| text.parse::<f64>().ok()).is_some_and(|percent| percent < WELL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn keys_mean_what_people_expect() {
        let key = |code, modifiers| meant(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meant(&Event::Resize(1, 1)), Some(Key::Redraw));
    }

    #[test]
    fn a_line_with_failures_is_marked() {
        let row = |success: &'static str| {
            HEAD.iter().map(move |name| if *name == "success" { success } else { "x" }.to_owned())
        };
        assert!(is_ill(&row("98.20%").collect::<Vec<_>>()));
        assert!(!is_ill(&row("99.90%").collect::<Vec<_>>()) && !is_ill(&row("-").collect::<Vec<_>>()));
    }

    #[test]
    fn a_table_is_drawn_without_a_terminal() {
        let mut terminal = ratatui::Terminal::new(ratatui::backend::TestBackend::new(40, 4)).unwrap();
        let cells =
            vec![vec!["source".to_owned(), "p50".to_owned()], vec!["web".to_owned(), "1ms".to_owned()]];
        terminal.draw(|frame| frame.render_widget(shown(&cells), frame.area())).unwrap();
        let text = terminal.backend().to_string();
        assert!(text.contains("source  p50") && text.contains("web     1ms"), "{text}");
    }
}
