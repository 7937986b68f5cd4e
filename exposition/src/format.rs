//! Which of the forms of a page a scraper wants.
//!
//! Invariant: who asks for nothing we know gets the classic text, which every scraper reads.

/// The form of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text, version 0.0.4.
    Classic,
    /// OpenMetrics text, version 1.0.0, with exemplars.
    OpenMetrics,
    /// Prometheus' protobuf, delimited, with native histograms beside the classic ones.
    Protobuf,
}

impl Format {
    /// What an `Accept` field asks for; of several that are wanted equally, the first.
    ///
    /// Source: RFC 9110, section 12.5.1; the types are those that Prometheus' scraper names.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut best = (Self::Classic, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            if let Some((format, quality)) = read(range)
                && quality > best.1
            {
                best = (format, quality);
            }
        }
        best.0
    }

    /// The page's media type.
    ///
    /// Source: Prometheus, "Exposition formats"; OpenMetrics 1.0.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

fn read(range: &str) -> Option<(Format, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut quality, mut version, mut proto, mut encoding) = (1.0, "", "", "");
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = value.parse().unwrap_or(0.0),
            "version" => version = value,
            "proto" => proto = value,
            "encoding" => encoding = value,
            _ => {}
        }
    }
    let format = match kind.as_str() {
        "application/vnd.google.protobuf"
            if proto == "io.prometheus.client.MetricFamily" && encoding == "delimited" =>
        {
            Format::Protobuf
        }
        "application/openmetrics-text" if matches!(version, "" | "1.0.0" | "0.0.1") => Format::OpenMetrics,
        "text/plain" if matches!(version, "" | "0.0.4") => Format::Classic,
        "text/*" | "*/*" => Format::Classic,
        _ => return None,
    };
    Some((format, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_likes_best_and_anybody_else_the_classic_text() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                        application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let plain = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (None, Format::Classic),
            (Some("*/*"), Format::Classic),
            (Some("text/html, application/json"), Format::Classic),
            (Some("application/openmetrics-text; version=\"1.0.0\""), Format::OpenMetrics),
            (Some("application/openmetrics-text;version=2.0.0, text/plain"), Format::Classic),
            (Some("application/openmetrics-text;q=0.1, text/plain;q=0.9"), Format::Classic),
            (Some("application/openmetrics-text;q=nonsense"), Format::Classic),
            (Some("application/vnd.google.protobuf"), Format::Classic),
            (Some(plain), Format::OpenMetrics),
            (Some(protobuf), Format::Protobuf),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept:?}");
        }
    }
}
