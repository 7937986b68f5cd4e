//! Names that the sidecar itself resolves: its control plane's, and its collectors'. Whoever is called by
//! the application was resolved by the application.
//!
//! Invariant: each resolution has a deadline, and is counted by how it ended; an address is no name.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::metrics::plain::{Naming, Purpose};

/// The addresses of a host.
///
/// # Errors
/// The resolver says no, or nothing until `deadline`.
///
/// # Cancel safety
/// Dropped, nothing is left behind, and nothing is counted.
pub(crate) async fn resolve(
    metrics: &Metrics,
    purpose: Purpose,
    (host, port): (&str, u16),
    deadline: Instant,
) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (outcome, result) =
        match tokio::time::timeout_at(deadline, tokio::net::lookup_host((host, port))).await {
            Err(_) => {
                let late = format!("{host} was not resolved in time");
                (Naming::TimedOut, Err(io::Error::new(io::ErrorKind::TimedOut, late)))
            }
            Ok(Err(error)) => {
                let why = format!("{host} cannot be resolved: {error}");
                (Naming::Failed, Err(io::Error::new(error.kind(), why)))
            }
            Ok(Ok(found)) => (Naming::Found, Ok(found.collect())),
        };
    metrics.plain().names(purpose, outcome).up();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn names_are_counted_by_how_they_end_and_addresses_are_not() {
        let metrics = Metrics::default();
        let end = Instant::now() + Duration::from_secs(20);
        let ask = async |host| resolve(&metrics, Purpose::ControlPlane, (host, 80), end).await;
        assert_eq!(ask("::1").await.unwrap(), ["[::1]:80".parse().unwrap()]);
        assert!(ask("localhost").await.unwrap().iter().all(|address| address.ip().is_loopback()));
        assert!(ask("a name with blanks").await.is_err());
        let counted = Naming::ALL.map(|how| metrics.plain().names(Purpose::ControlPlane, how).read());
        assert_eq!(counted, [1, 1, 0]);
    }
}
