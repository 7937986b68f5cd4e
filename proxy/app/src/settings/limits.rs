//! Limits and deadlines of one sidecar, each with its default and where the default comes from.
//!
//! Invariant: there is no way to switch a limit off, only to move it.
//! Invariant: what concerns one backend (its connections, its timeouts) is no setting but a
//! TrafficPolicy; here stands what protects the sidecar itself.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::values::{span, span_text};

/// Limits and deadlines that protect the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Downstream connections at a time on one data thread, both directions together; more are closed at
    /// once.
    // Source: Weft's own; 9 KiB for each idle one stay under 150 MiB. Envoy and Linkerd set none.
    #[arg(long, env = "WEFT_MAX_CONNECTIONS", value_name = "N", default_value = "16384", value_parser = count)]
    pub max_connections: usize,

    /// Bytes of one message's header section, request or answer.
    // Source: Envoy max_request_headers_kb 60, rounded to a power of two; nginx 32 KiB, hyper 400 KiB.
    #[arg(long, env = "WEFT_MAX_HEADER_BYTES", value_name = "BYTES", default_value = "65536", value_parser = count)]
    pub max_header_bytes: usize,

    /// Header fields of one message.
    // Source: Envoy max_headers_count 100, hyper's HTTP/1 default 100.
    #[arg(long, env = "WEFT_MAX_HEADERS", value_name = "N", default_value = "100", value_parser = count)]
    pub max_headers: usize,

    /// Time for a message's header section once its first byte is there.
    // Source: hyper 30 s, nginx 60 s, Envoy none; inside a cluster a third is generous.
    #[arg(long, env = "WEFT_HEADER_TIMEOUT", value_name = "SPAN", default_value = "10s", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub header_timeout: Duration,

    /// Time for a downstream's TLS handshake.
    // Source: Istio's Envoy 15 s, Linkerd 10 s for detection and handshake together.
    #[arg(long, env = "WEFT_HANDSHAKE_TIMEOUT", value_name = "SPAN", default_value = "10s", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub handshake_timeout: Duration,

    /// How long a connection on which neither side speaks is watched before it is treated as opaque.
    // Source: Linkerd 10 s. A server that speaks first ends it at once, so nobody waits for this.
    #[arg(long, env = "WEFT_DETECT_TIMEOUT", value_name = "SPAN", default_value = "10s", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub detect_timeout: Duration,

    /// Bytes looked at to recognise a protocol.
    // Source: a TLS record of 16 KiB is the longest first message to be recognised, RFC 8446 §5.1.
    #[arg(long, env = "WEFT_DETECT_BYTES", value_name = "BYTES", default_value = "16384", value_parser = count)]
    pub detect_bytes: usize,

    /// Time for a downstream HTTP connection without a request.
    // Source: Envoy's HTTP idle_timeout 1 h; longer than what client pools keep.
    #[arg(long, env = "WEFT_HTTP_IDLE_TIMEOUT", value_name = "SPAN", default_value = "1h", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub http_idle_timeout: Duration,

    /// Time for an opaque connection on which no byte moves.
    // Source: Weft's own. Envoy's 1 h cuts pools of database connections; a dead peer is found by TCP
    // keepalive long before.
    #[arg(long, env = "WEFT_TCP_IDLE_TIMEOUT", value_name = "SPAN", default_value = "24h", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub tcp_idle_timeout: Duration,

    /// Time for a stream whose reader takes nothing of what is held for it.
    // Source: Envoy's stream_idle_timeout 5 min, here only while bytes are stuck.
    #[arg(long, env = "WEFT_STALL_TIMEOUT", value_name = "SPAN", default_value = "5m", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub stall_timeout: Duration,

    /// Streams at a time on one downstream HTTP/2 connection.
    // Source: hyper 200, nginx 128, Envoy 1024 since 1.36; a meshed peer multiplexes many callers.
    #[arg(long, env = "WEFT_H2_MAX_STREAMS", value_name = "N", default_value = "1024", value_parser = count32)]
    pub h2_max_streams: u32,

    /// Receive window of one HTTP/2 stream, bytes.
    // Source: four times RFC 9113's 65,535, so that one stream fills a fast link within a cluster.
    #[arg(long, env = "WEFT_H2_STREAM_WINDOW", value_name = "BYTES", default_value = "262144", value_parser = window)]
    pub h2_stream_window: u32,

    /// Receive window of one HTTP/2 connection, bytes.
    // Source: h2 0.4.20 charges unread small DATA frames against half of this window and ends the whole
    // connection beyond it, so it must be large; Linkerd has 1 MiB.
    #[arg(long, env = "WEFT_H2_CONNECTION_WINDOW", value_name = "BYTES", default_value = "16777216", value_parser = window)]
    pub h2_connection_window: u32,

    /// Control frames without progress (PING, SETTINGS, PRIORITY, empty WINDOW_UPDATE, unknown types) on
    /// one connection between two requests; more end it with ENHANCE_YOUR_CALM.
    // Source: Envoy counts 10,000 outbound replies and 100 PRIORITY frames a stream; nginx some 1,000.
    #[arg(long, env = "WEFT_H2_MAX_CONTROL_FRAMES", value_name = "N", default_value = "1000", value_parser = count32)]
    pub h2_max_control_frames: u32,

    /// Bytes held in the whole process for peers that do not read; beyond it the slowest are reset.
    // Source: Weft's own: half of the 256 MiB that charts commonly grant a sidecar.
    #[arg(long, env = "WEFT_MAX_HELD_BYTES", value_name = "BYTES", default_value = "134217728", value_parser = count)]
    pub max_held_bytes: usize,

    /// Interim answers (1xx) to one request before it counts as a bad gateway.
    // Source: Weft's own; more than any real server sends.
    #[arg(long, env = "WEFT_MAX_INTERIM", value_name = "N", default_value = "16", value_parser = count32)]
    pub max_interim: u32,

    /// How long a connection waits for the control plane's word on a destination never seen before.
    // Source: Weft's own. Linkerd waits without end; a name the control plane knows takes milliseconds.
    #[arg(long, env = "WEFT_LOOKUP_TIMEOUT", value_name = "SPAN", default_value = "1s", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub lookup_timeout: Duration,

    /// A destination without connections is forgotten after this.
    // Source: Weft's own. Linkerd forgets after 5 s, and then depends on its control plane again.
    #[arg(long, env = "WEFT_LOOKUP_IDLE", value_name = "SPAN", default_value = "10m", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub lookup_idle: Duration,

    /// Destinations held at a time.
    // Source: Weft's own: some 2 MiB of configuration for small services.
    #[arg(long, env = "WEFT_MAX_LOOKUPS", value_name = "N", default_value = "4096", value_parser = count)]
    pub max_lookups: usize,

    /// A series of metrics that nobody uses goes after once or twice this time.
    // Source: Prometheus calls a series stale after 5 min, so a scrape sees its last value.
    #[arg(long, env = "WEFT_SERIES_IDLE", value_name = "SPAN", default_value = "5m", value_parser = span)]
    #[serde(serialize_with = "span_text")]
    pub series_idle: Duration,
}

impl Default for Limits {
    /// What no flag and no variable gives; the sources stand beside the flags.
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            max_connections: 16_384,
            max_header_bytes: 64 << 10,
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            detect_timeout: Duration::from_secs(10),
            detect_bytes: 16 << 10,
            http_idle_timeout: 60 * MINUTE,
            tcp_idle_timeout: 24 * 60 * MINUTE,
            stall_timeout: 5 * MINUTE,
            h2_max_streams: 1024,
            h2_stream_window: 256 << 10,
            h2_connection_window: 16 << 20,
            h2_max_control_frames: 1000,
            max_held_bytes: 128 << 20,
            max_interim: 16,
            lookup_timeout: Duration::from_secs(1),
            lookup_idle: 10 * MINUTE,
            max_lookups: 4096,
            series_idle: 5 * MINUTE,
        }
    }
}

const AT_LEAST_ONE: &str = "a whole number of at least 1";

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is not {AT_LEAST_ONE}"))
}

fn count32(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is not {AT_LEAST_ONE}"))
}

/// A flow-control window. Source: RFC 9113 §6.9.1, at most 2^31-1.
fn window(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|n| (65_535..=0x7fff_ffff).contains(n))
        .ok_or_else(|| format!("{text:?} is not a window of HTTP/2, 65535 to 2147483647 bytes"))
}
