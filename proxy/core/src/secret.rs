//! Which header fields hold secrets: they reach no log, no tap and no span, whatever is asked for.
//!
//! Read when telemetry is configured, and by whoever shows a head to a person.
//!
//! Invariant: a name that is a secret stays one, whatever a policy says.

/// Whether a field of this name may hold a credential. `name` in lower case.
///
/// Source: RFC 9110 §11.6 and §11.7, RFC 6265; the rest are what API gateways and clouds call theirs.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "proxy-authenticate",
        "authentication-info",
        "proxy-authentication-info",
        "cookie",
        "set-cookie",
        "api-key",
        "apikey",
    ];
    const PARTS: [&str; 8] =
        ["token", "secret", "password", "passwd", "credential", "api-key", "apikey", "session"];
    NAMES.contains(&name)
        || PARTS.iter().any(|part| name.contains(part))
        || name.starts_with("x-auth")
        || name == "x-forwarded-client-cert"
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn credentials_are_known_by_their_names() {
        for secret in
            ["authorization", "cookie", "x-api-key", "x-amz-security-token", "x-csrf-token", "x-auth-user"]
        {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in ["x-tenant", "user-agent", "content-type", "x-request-id", "x-canary", "accept"] {
            assert!(!is_secret(plain), "{plain}");
        }
    }
}
