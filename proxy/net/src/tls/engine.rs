//! rustls' state machine, turned: bytes in, bytes out, no socket.
//!
//! Invariant: every byte given to [`Session::open`] is either reported as used or must be given again.
//! Invariant: what rustls wants to send is in `unsent` before [`Session::open`] returns.

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
}

impl Turn for UnbufferedClientConnection {
    type Side = ClientConnectionData;
    fn turn<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(bytes)
    }
}

impl Turn for UnbufferedServerConnection {
    type Side = ServerConnectionData;
    fn turn<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(bytes)
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
    pub(crate) fn seal(&mut self, plain: &[u8], area: &mut [u8]) -> Result<usize, rustls::Error> {
        either!(self, c => write(c, area, |traffic, area| traffic.encrypt(plain, area)))
    }

    /// Puts `close_notify` into `area`; returns the length.
    pub(crate) fn close(&mut self, area: &mut [u8]) -> Result<usize, rustls::Error> {
        either!(self, c => write(c, area, |traffic, area| traffic.queue_close_notify(area)))
    }

    /// Begins a key update and puts its message into `unsent`.
    pub(crate) fn refresh_keys(&mut self, unsent: &mut Rest) -> Result<(), rustls::Error> {
        either!(self, c => match c.turn(&mut []).state? {
            ConnectionState::WriteTraffic(traffic) => traffic.refresh_traffic_keys()?,
            _ => return Err(rustls::Error::HandshakeNotComplete),
        });
        self.alert(unsent);
        Ok(())
    }

    /// Puts what rustls still wants to say (the alert after an error) into `unsent`.
    pub(crate) fn alert(&mut self, unsent: &mut Rest) {
        either!(self, c => while let Ok(ConnectionState::EncodeTlsData(data)) = c.turn(&mut []).state {
            if encode(data, unsent).is_err() {
                break;
            }
        });
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
        let more = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plain.put(record.payload);
                }
                true
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, unsent)?;
                true
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                true
            }
            ConnectionState::PeerClosed => {
                ended = true;
                true
            }
            // Nothing more in these bytes; early data is never offered.
            _ => false,
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
    area: &mut [u8],
    what: impl FnOnce(&mut WriteTraffic<'_, C::Side>, &mut [u8]) -> Result<usize, E>,
) -> Result<usize, rustls::Error> {
    let general = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
    let mut at = 0;
    loop {
        let rest = area.get_mut(at..).unwrap_or_default();
        match connection.turn(&mut []).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return Ok(at + what(&mut traffic, rest).map_err(|error| general(&error))?);
            }
            ConnectionState::EncodeTlsData(mut data) => {
                at += data.encode(rest).map_err(|error| general(&error))?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(rustls::Error::HandshakeNotComplete),
        }
    }
}

/// A TLS error as the stream's error.
pub(crate) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
