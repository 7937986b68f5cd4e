//! Join tokens: what proves a sidecar's first request where no Kubernetes API can.
//!
//! The file is a YAML list; each entry names a `token` (or its `tokenSha256`, hexadecimal), whom it
//! speaks for (`workload: ns/pod`, `serviceAccount: ns/name`, or both) and how long: `expires`
//! (RFC 3339) and `uses`. An entry with neither is good for one use.
//!
//! Invariant: a token is compared as a SHA-256 hash, with every entry, in constant time.
//! Invariant: a file that cannot be read changes nothing; the last good list stays in force.
//! Invariant: a use is on disk before the certificate leaves, where there is a state directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use weft_proto::names::{Workload, is_label, is_subdomain};

use crate::files;

/// Largest token file that is read. Source: Weft's own; some ten thousand tokens.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// Shortest token that is accepted in a file. Source: 16 characters of hexadecimal are 64 bits,
/// and `Identity.Sign` is limited in rate.
const TOKEN_MIN: usize = 16;
/// Uses of an entry that says neither `uses` nor `expires`. Source: Weft's own; what was used once is worth nothing to a thief.
const DEFAULT_USES: u64 = 1;
/// Uses so far, by token hash, inside the state directory. Source: Weft's own.
const USES: &str = "join-token-uses.json";

/// A namespace and a name within it: a service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Whom a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Only this workload; absent: any workload of the service account.
    pub workload: Option<Workload>,
    /// Only this service account; absent: the workload's own.
    pub service_account: Option<ServiceAccount>,
    key: String,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No entry has this token.
    #[error("the join token is not known here")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// Its uses are spent.
    #[error("the join token has been used up")]
    Used,
    /// The count of uses cannot be kept.
    #[error("the use of the join token cannot be recorded: {0}")]
    Unrecorded(String),
}

/// The join tokens of one file, reloaded when it changes.
#[derive(Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
    uses_file: Option<PathBuf>,
    seen: Option<(SystemTime, u64)>,
    entries: Vec<Entry>,
    uses: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct Entry {
    hash: [u8; 32],
    grant: Grant,
    expires: Option<u64>,
    uses: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    token: Option<String>,
    token_sha256: Option<String>,
    workload: Option<String>,
    service_account: Option<String>,
    expires: Option<Time>,
    uses: Option<u64>,
}

impl Tokens {
    /// Reads the file and the uses that were recorded before.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn open(file: Option<&Path>, state: Option<&Path>) -> Result<Self, String> {
        let uses_file = state.map(|state| state.join(USES));
        let uses = match &uses_file {
            Some(path) if path.exists() => read_uses(path)?,
            _ => BTreeMap::new(),
        };
        let mut tokens =
            Self { file: file.map(Path::to_owned), uses_file, seen: None, entries: Vec::new(), uses };
        tokens.reload()?;
        Ok(tokens)
    }

    /// Reads the file again if it changed.
    ///
    /// # Errors
    /// The file cannot be read; the entries stay as they were.
    pub fn reload(&mut self) -> Result<(), String> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let found = std::fs::metadata(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mark = (found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len());
        if self.seen == Some(mark) {
            return Ok(());
        }
        if files::readable_by_others(&file).unwrap_or(false) {
            let path = file.display().to_string();
            tracing::warn!(file = path, "join tokens are readable by group or others; make the mode 0600");
        }
        let bytes = files::read_limited(&file, FILE_LIMIT).map_err(|error| error.to_string())?;
        // Marked before it is parsed: a bad file is reported once, not at every request.
        self.seen = Some(mark);
        self.entries = parse(&bytes).map_err(|reason| format!("{}: {reason}", file.display()))?;
        Ok(())
    }

    /// Finds the grant of a token that may be used now.
    ///
    /// # Errors
    /// The token is unknown, expired or used up.
    pub fn grant(&self, token: &str, now: u64) -> Result<Grant, TokenError> {
        let hash = digest(&SHA256, token.as_bytes());
        let mut found = None;
        for entry in &self.entries {
            if verify_slices_are_equal(&entry.hash, hash.as_ref()).is_ok() {
                found = Some(entry);
            }
        }
        let entry = found.ok_or(TokenError::Unknown)?;
        if entry.expires.is_some_and(|end| now >= end) {
            return Err(TokenError::Expired);
        }
        let used = self.uses.get(&entry.grant.key).copied().unwrap_or(0);
        if entry.uses.is_some_and(|limit| used >= limit) {
            return Err(TokenError::Used);
        }
        Ok(entry.grant.clone())
    }

    /// Records one use of a grant, again under its limit, before the certificate leaves.
    ///
    /// # Errors
    /// The token was used up meanwhile, or the use cannot be recorded.
    pub fn spend(&mut self, grant: &Grant) -> Result<(), TokenError> {
        let limit = self.entries.iter().find(|entry| entry.grant.key == grant.key).map(|entry| entry.uses);
        let limit = limit.ok_or(TokenError::Unknown)?;
        let Some(limit) = limit else { return Ok(()) };
        let used = self.uses.entry(grant.key.clone()).or_default();
        if *used >= limit {
            return Err(TokenError::Used);
        }
        *used += 1;
        let Some(path) = &self.uses_file else { return Ok(()) };
        let text =
            serde_json::to_vec_pretty(&self.uses).map_err(|e| TokenError::Unrecorded(e.to_string()))?;
        files::write_atomically(path, &text, 0o600).map_err(|e| TokenError::Unrecorded(e.to_string()))
    }
}

fn read_uses(path: &Path) -> Result<BTreeMap<String, u64>, String> {
    let bytes = files::read_limited(path, FILE_LIMIT).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // The library's message may quote the line, and with it a token: only the place is told.
    let written: Vec<Written> = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(at) => format!("line {}: not a list of join tokens (see README, join tokens)", at.line()),
        None => "not a list of join tokens (see README, join tokens)".to_owned(),
    })?;
    let entry = |(at, written)| entry(written).map_err(|reason| format!("entry {}: {reason}", at + 1));
    let entries: Vec<Entry> = written.into_iter().enumerate().map(entry).collect::<Result<_, _>>()?;
    let mut keys: Vec<&str> = entries.iter().map(|entry| entry.grant.key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("one token stands in two entries".to_owned());
    }
    Ok(entries)
}

fn entry(written: Written) -> Result<Entry, String> {
    let hash = match (&written.token, &written.token_sha256) {
        (Some(token), None) if token.len() < TOKEN_MIN => {
            return Err(format!("a token has at least {TOKEN_MIN} characters"));
        }
        (Some(token), None) => hash_of(token),
        (None, Some(text)) => unhex(text).ok_or("tokenSha256 is not 64 hexadecimal digits")?,
        _ => return Err("either token or tokenSha256 is needed, not both".to_owned()),
    };
    let workload = match &written.workload {
        Some(text) => Some(text.parse::<Workload>().map_err(|error| error.to_string())?),
        None => None,
    };
    let service_account = match &written.service_account {
        Some(text) => Some(service_account(text)?),
        None => None,
    };
    if workload.is_none() && service_account.is_none() {
        return Err("workload or serviceAccount is needed".to_owned());
    }
    let expires = written.expires.map(|time| u64::try_from(time.0.as_second()).unwrap_or(0));
    let uses = match (written.uses, expires) {
        (None, None) => Some(DEFAULT_USES),
        (uses, _) => uses,
    };
    Ok(Entry { hash, grant: Grant { workload, service_account, key: hex(&hash) }, expires, uses })
}

fn service_account(text: &str) -> Result<ServiceAccount, String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
            Ok(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(format!("{text:?} is not a service account (namespace/name, e.g. shop/cart)")),
    }
}

fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
