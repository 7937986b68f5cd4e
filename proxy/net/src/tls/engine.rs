//! rustls' state machine, turned: bytes in, bytes out, no socket.
//!
//! Invariant: every byte given to [`Session::open`] is either reported as used or must be given again.
//! Invariant: what rustls wants to send is in `unsent` before [`Session::open`] returns, the alert after an
//! error included.
//! Invariant: every turn is given the bytes that earlier turns left over. rustls remembers where in them an
//! unfinished handshake message lies and would panic on a shorter buffer, and a peer can leave a message
//! unfinished at any time.

use crate::buffers::{Area, Rest, Room, with_scratch};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use std::io;

/// Either side of a connection.
pub(crate) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

/// Where plaintext goes: what fits to the reader, the rest to `left`.
pub(crate) struct Plain<'a, R: Room> {
    pub(crate) room: &'a mut R,
    pub(crate) left: &'a mut Rest,
    pub(crate) got: bool,
}

impl<R: Room> Plain<'_, R> {
    fn put(&mut self, bytes: &[u8]) {
        let fits = if self.left.is_empty() { self.room.room().min(bytes.len()) } else { 0 };
        let (now, later) = bytes.split_at_checked(fits).unwrap_or((&[], bytes));
        self.room.put(now);
        self.left.push(later);
        self.got |= !bytes.is_empty();
    }
}

/// What became of the bytes given to [`Session::open`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    /// Bytes that need not be given again.
    pub(crate) used: usize,
    /// Plaintext came.
    pub(crate) got: bool,
    /// The peer said `close_notify`.
    pub(crate) ended: bool,
}

/// One turn of either connection type.
trait Turn {
    type Side;
    fn turn<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side>;
    /// Whether rustls has something to say.
    fn wants_write(&self) -> bool;
}

impl Turn for UnbufferedClientConnection {
    type Side = ClientConnectionData;
    fn turn<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(bytes)
    }
    fn wants_write(&self) -> bool {
        rustls::CommonState::wants_write(self)
    }
}

impl Turn for UnbufferedServerConnection {
    type Side = ServerConnectionData;
    fn turn<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(bytes)
    }
    fn wants_write(&self) -> bool {
        rustls::CommonState::wants_write(self)
    }
}

/// Runs the same generic code on either side.
macro_rules! either {
    ($session:expr, $c:ident => $body:expr) => {
        match $session {
            Session::Client($c) => $body,
            Session::Server($c) => $body,
        }
    };
}

impl Session {
    /// What the handshake agreed.
    pub(crate) fn state(&self) -> &rustls::CommonState {
        either!(self, c => c)
    }

    /// Decrypts `bytes`; stops when all complete records are used.
    pub(crate) fn open<R: Room>(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Plain<'_, R>,
        unsent: &mut Rest,
    ) -> Result<Opened, rustls::Error> {
        either!(self, c => open(c, bytes, plain, unsent))
    }

    /// Encrypts `plain` into `area`, with whatever else rustls wants to say; returns the length.
    pub(crate) fn seal(
        &mut self,
        plain: &[u8],
        held: &mut Rest,
        area: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        either!(self, c => write(c, held, area, |traffic, area| traffic.encrypt(plain, area)))
    }

    /// Puts `close_notify` into `area`; returns the length.
    pub(crate) fn close(&mut self, held: &mut Rest, area: &mut [u8]) -> Result<usize, rustls::Error> {
        either!(self, c => write(c, held, area, |traffic, area| traffic.queue_close_notify(area)))
    }

    /// Begins a key update and puts its message into `unsent`.
    pub(crate) fn refresh_keys(&mut self, held: &mut Rest, unsent: &mut Rest) -> Result<(), rustls::Error> {
        either!(self, c => {
            match c.turn(held.as_mut_slice()).state? {
                ConnectionState::WriteTraffic(traffic) => traffic.refresh_traffic_keys()?,
                _ => return Err(rustls::Error::HandshakeNotComplete),
            }
            say(c, held.as_mut_slice(), unsent);
        });
        Ok(())
    }
}

/// Puts what rustls wants to say (an alert, a key update) into `unsent`; looks at no further message, because
/// after an error the same bytes would only fail again.
fn say<C: Turn>(connection: &mut C, bytes: &mut [u8], unsent: &mut Rest) {
    let mut used = 0;
    while connection.wants_write() {
        let rest = bytes.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = connection.turn(rest);
        match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                if encode(data, unsent).is_err() {
                    return;
                }
                used += discard;
            }
            _ => return,
        }
    }
}

fn open<C: Turn, R: Room>(
    connection: &mut C,
    bytes: &mut [u8],
    plain: &mut Plain<'_, R>,
    unsent: &mut Rest,
) -> Result<Opened, rustls::Error> {
    let mut used = 0;
    let mut ended = false;
    loop {
        let rest = bytes.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state, .. } = connection.turn(rest);
        let more = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plain.put(record.payload);
                }
                true
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, unsent)?;
                true
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                true
            }
            Ok(ConnectionState::PeerClosed) => {
                ended = true;
                true
            }
            // Nothing more in these bytes; early data is never offered.
            Ok(_) => false,
            Err(error) => {
                say(connection, bytes.get_mut(used + discard..).unwrap_or_default(), unsent);
                return Err(error);
            }
        };
        used += discard;
        if !more {
            return Ok(Opened { used, got: plain.got, ended });
        }
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, unsent: &mut Rest) -> Result<(), rustls::Error> {
    with_scratch(Area::Seal, |area| {
        let n = data.encode(area).map_err(|error| rustls::Error::General(error.to_string()))?;
        unsent.push(area.get(..n).unwrap_or_default());
        Ok(())
    })
}

fn write<C: Turn, E: std::fmt::Display>(
    connection: &mut C,
    held: &mut Rest,
    area: &mut [u8],
    what: impl FnOnce(&mut WriteTraffic<'_, C::Side>, &mut [u8]) -> Result<usize, E>,
) -> Result<usize, rustls::Error> {
    let general = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
    let mut at = 0;
    loop {
        let rest = area.get_mut(at..).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = connection.turn(held.as_mut_slice());
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let n = what(&mut traffic, rest).map_err(|error| general(&error))?;
                held.advance(discard);
                return Ok(at + n);
            }
            ConnectionState::EncodeTlsData(mut data) => {
                at += data.encode(rest).map_err(|error| general(&error))?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            _ => return Err(rustls::Error::HandshakeNotComplete),
        }
        held.advance(discard);
    }
}

/// A TLS error as the stream's error.
pub(crate) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
