//! The outbound walk of what is not HTTP: bytes in either direction, the application's own TLS included.
//!
//! Invariant: an endpoint is chosen once for a connection, and left for another only while nothing was
//! sent.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use weft_proxy_core::retry::{Failure, may_retry};
use weft_proxy_core::{Detection, Reason};
use weft_proxy_net::peek::{Side, first_speaker};
use weft_proxy_net::sock::Sock;

use super::{Here, http};
use crate::metrics::edge::{Direction, Edge, Protocol as Wire};
use crate::metrics::plain::Guess;
use crate::record::connection::ConnectionRecord;
use crate::rooms::balance::{Choice, balance};
use crate::rooms::connect::{self, Target};
use crate::rooms::detect::{self, First};
use crate::seat::Destination;
use crate::upstream::Picked;
use crate::worker::Worker;
use crate::{edges, stream};

/// Bytes of the application: one endpoint is chosen, then they are relayed. `silent`: the application
/// waits for the server, so both are listened to before anything is concluded.
pub(super) async fn relay(
    worker: &Rc<Worker>,
    mut sock: Sock,
    mut record: ConnectionRecord,
    here: Here,
    wire: Wire,
    silent: bool,
) {
    let (mut upstream, edge, _picked) = match reach(worker, &mut record, &here, wire).await {
        Ok(reached) => reached,
        Err(reason) => return stream::refuse(worker, sock, record, reason),
    };
    if silent {
        let guesses = |guess| worker.ledger.metrics().plain().guesses(Direction::Outbound, guess).up();
        let client_spoke = first_speaker(&mut sock, &mut upstream).await == Side::First;
        guesses(if client_spoke { Guess::Silent } else { Guess::ServerFirst });
        if client_spoke && detect::first_bytes(&mut sock, worker.plane.limits.detect).await == First::Bytes {
            match detect::settle(worker, &mut sock).await {
                Detection::Http1 => return Box::pin(http(worker, sock, record, here, false)).await,
                Detection::Http2 => return Box::pin(http(worker, sock, record, here, true)).await,
                Detection::Tls | Detection::Opaque | Detection::More => {}
            }
        }
    }
    stream::relay(worker, sock, upstream, record, &edge, std::future::pending()).await;
}

/// Rooms 5 to 7 for bytes. An endpoint that cannot be reached is left for another while nothing was
/// sent.
async fn reach(
    worker: &Rc<Worker>,
    record: &mut ConnectionRecord,
    here: &Here,
    wire: Wire,
) -> Result<(Sock, Arc<Edge>, Option<Picked>), Reason> {
    let (way, upstream) = match &here.destination {
        Destination::Unknown(address) => {
            let timeout = worker.plane.limits.connect;
            let sock = connect::stream(worker, Target::plain(*address, timeout)).await?;
            return Ok((sock, edges::passing(worker, *address, wire), None));
        }
        Destination::Application { .. } => return Err(Reason::Internal),
        Destination::Direct(endpoint) => (None, worker.direct(endpoint)),
        Destination::Service(name) => {
            let service = worker.service(name).ok_or(Reason::ConfigTimeout)?;
            let plan = service.outbound.opaque(&mut service.turns.borrow_mut());
            let upstream = service.upstreams.get(usize::from(plan.backend)).cloned();
            (Some((service, plan)), upstream.ok_or(Reason::InvalidBackend)?)
        }
    };
    let mut exclude = None;
    let mut made = 0;
    loop {
        made += 1;
        let Choice { mut picked, .. } = balance(worker, &upstream, exclude)?;
        exclude = Some(picked.id());
        let timeout = upstream.backend().policy.connect_timeout;
        let endpoint = picked.endpoint.clone();
        match connect::stream(worker, Target::endpoint(&endpoint, timeout)).await {
            Ok(sock) => {
                picked.settle(worker.now(), true);
                record.plan(&upstream.name, &upstream.name);
                let edge = edges::outbound(worker, way.as_ref(), &picked, wire);
                return Ok((sock, edge, Some(picked)));
            }
            // A sidecar that reset the connection without a word was reached: it refuses, or its
            // application saw bytes of ours.
            Err(reason @ Reason::UpstreamReset) => {
                picked.settle(worker.now(), true);
                return Err(reason);
            }
            Err(reason) => {
                let now = worker.now();
                upstream.note(picked.settle(now, false), endpoint.address);
                let again = may_retry(Failure::Connect, &Method::CONNECT, true, made, false);
                if !again || !upstream.may_spend_retry(now) {
                    return Err(reason);
                }
            }
        }
    }
}
