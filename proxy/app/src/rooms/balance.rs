//! Room 6, **balance**: a plan's backend in, one endpoint out.
//!
//! After *route*, before *connect*. While a backend's circuit is open, or none of its endpoints is
//! ready, its fallback is asked instead.
//!
//! Invariant: an endpoint that just failed this request is not chosen again while there is another.

use std::rc::Rc;

use weft_proxy_core::Reason;
use weft_proxy_core::balance::EndpointId;

use crate::upstream::{NoEndpoint, Picked, Upstream};
use crate::worker::Worker;

/// An endpoint, and whether it belongs to the fallback.
pub(crate) struct Choice {
    pub(crate) picked: Picked,
    pub(crate) fallback: bool,
}

/// Chooses the endpoint of one attempt.
pub(crate) fn balance(
    worker: &Worker,
    upstream: &Rc<Upstream>,
    exclude: Option<EndpointId>,
) -> Result<Choice, Reason> {
    let now = worker.now();
    let mut picked = upstream.pick(now, &mut worker.chance(), exclude);
    if exclude.is_some() && picked.as_ref().is_err_and(|refused| *refused == NoEndpoint::NoneReady) {
        picked = upstream.pick(now, &mut worker.chance(), None);
    }
    let refused = match picked {
        Ok(picked) => return Ok(Choice { picked, fallback: false }),
        Err(refused) => refused,
    };
    if let Some(fallback) = upstream.fallback()
        && let Ok(picked) = fallback.pick(now, &mut worker.chance(), None)
    {
        upstream.meter.fell_back();
        return Ok(Choice { picked, fallback: true });
    }
    Err(match refused {
        NoEndpoint::NoneReady => Reason::NoEndpoint,
        NoEndpoint::CircuitOpen => Reason::CircuitOpen,
    })
}
