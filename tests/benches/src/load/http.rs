//! HTTP/1.1 load: closed loop, open loop, one exchange.
//! Before this: `load`. After it: proxy A.
//!
//! Invariant: one request per connection in flight; what is due while all are busy waits in line, its clock running.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::pace::Pace;
use super::{Shared, Tally};
use crate::message::{HTTP_REQUEST, http_answer};

/// One exchange on a connection of its own.
pub(super) async fn once(address: SocketAddr) -> Result<()> {
    exchange(&mut connect(address).await?, &mut Vec::new()).await
}

/// As many requests as come back, on `connections`.
pub(super) async fn closed(address: SocketAddr, connections: usize, tally: Shared) -> Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut stream = connect(address).await?;
        let tally = Rc::clone(&tally);
        tasks.spawn_local(async move {
            let mut held = Vec::with_capacity(4096);
            while !tally.borrow().over() {
                let sent = Instant::now();
                match exchange(&mut stream, &mut held).await {
                    Ok(()) => tally.borrow_mut().right(sent),
                    Err(error) => return tally.borrow_mut().wrong(&error),
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// `rps` requests per second, spread over `connections` in turn.
pub(super) async fn open(address: SocketAddr, rps: u32, connections: usize, tally: Shared) -> Result<()> {
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(Rc::new(connect(address).await?));
    }
    let end = tally.borrow().window.to;
    let board = Rc::new(RefCell::new(Board {
        idle: (0..connections).collect(),
        sent: vec![None; connections],
        waiting: VecDeque::new(),
        lines,
    }));
    let mut readers = JoinSet::new();
    for line in 0..connections {
        readers.spawn_local(answers(line, Rc::clone(&board), Rc::clone(&tally)));
    }
    let mut pace = Pace::new(rps)?;
    loop {
        let due = pace.next().await?;
        if due >= end {
            break;
        }
        board.borrow_mut().send(due)?;
    }
    settle(&board, &tally).await;
    Ok(())
}

/// The connections of an open loop and what is due on them.
struct Board {
    lines: Vec<Rc<TcpStream>>,
    idle: VecDeque<usize>,
    sent: Vec<Option<Instant>>,
    waiting: VecDeque<Instant>,
}

impl Board {
    fn send(&mut self, due: Instant) -> Result<()> {
        let Some(line) = self.idle.pop_front() else {
            self.waiting.push_back(due);
            return Ok(());
        };
        self.sent[line] = Some(due);
        let written = self.lines[line].try_write(&HTTP_REQUEST).context("cannot send")?;
        ensure!(written == HTTP_REQUEST.len(), "a socket that takes less than one request");
        Ok(())
    }

    fn answered(&mut self, line: usize) -> Result<Instant> {
        let due = self.sent[line].take().context("an answer that nobody asked for")?;
        self.idle.push_back(line);
        if let Some(next) = self.waiting.pop_front() {
            self.send(next)?;
        }
        Ok(due)
    }

    fn outstanding(&self) -> usize {
        self.waiting.len() + self.sent.iter().flatten().count()
    }
}

async fn answers(line: usize, board: Rc<RefCell<Board>>, tally: Shared) {
    let stream = Rc::clone(&board.borrow().lines[line]);
    let mut held = Vec::with_capacity(4096);
    loop {
        let step = async {
            receive(&stream, &mut held).await?;
            board.borrow_mut().answered(line)
        };
        match step.await {
            Ok(due) => tally.borrow_mut().right(due),
            Err(error) => return tally.borrow_mut().wrong(&error),
        }
    }
}

async fn receive(stream: &TcpStream, held: &mut Vec<u8>) -> Result<()> {
    loop {
        if let Some(end) = http_answer(held)? {
            held.drain(..end);
            return Ok(());
        }
        stream.readable().await?;
        match stream.try_read_buf(held) {
            Ok(0) => bail!("closed before the answer"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives late answers half the patience of the run, then counts the rest as bad.
async fn settle(board: &RefCell<Board>, tally: &RefCell<Tally>) {
    for _ in 0..100 {
        if board.borrow().outstanding() == 0 {
            return;
        }
        tokio::time::sleep(super::PATIENCE / 200).await;
    }
    for _ in 0..board.borrow().outstanding() {
        tally.borrow_mut().wrong(&anyhow::anyhow!("no answer"));
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, held: &mut Vec<u8>) -> Result<()> {
    stream.write_all(&HTTP_REQUEST).await?;
    loop {
        if stream.read_buf(held).await? == 0 {
            bail!("closed before the answer");
        }
        if let Some(end) = http_answer(held)? {
            held.drain(..end);
            return Ok(());
        }
    }
}
