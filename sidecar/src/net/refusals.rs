//! Saying why a peer was refused, on both sides, without letting anyone fill the log.

use quinn::{ConnectionError, TransportErrorCode};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// One line per address in this time; the others are counted.
const QUIET: Duration = Duration::from_secs(10);
/// Addresses remembered; beyond, the oldest is forgotten.
const MAX_ADDRS: usize = 256;

/// What a broken connection or handshake means in words.
#[must_use]
pub fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(e) => match alert(e.code) {
            Some(alert) => format!("handshake refused here: {} ({alert})", e.reason),
            None => format!("transport error: {e}"),
        },
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => format!("handshake refused by the peer: {alert}"),
            None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                "the peer refused the connection".into()
            }
            None => format!("closed by the peer's transport: {close}"),
        },
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
            format!("closed by the peer: {reason} (code {})", close.error_code)
        }
        ConnectionError::TimedOut => "no answer in time".into(),
        ConnectionError::Reset => "the peer does not know this connection (it restarted)".into(),
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".into(),
        ConnectionError::LocallyClosed => "closed here".into(),
        ConnectionError::CidsExhausted => "connection ids exhausted".into(),
    }
}

/// A TLS alert as an operator can act on it.
fn alert(code: TransportErrorCode) -> Option<String> {
    let code = u64::from(code).checked_sub(0x100).filter(|alert| *alert < 256)?;
    Some(match code {
        42 | 43 | 46 => "the certificate is bad".into(),
        44 => "the certificate was revoked".into(),
        45 => "the certificate is expired or not valid yet; compare the clocks".into(),
        48 => "the certificate is not from this cluster; do both nodes use the same cluster key file?".into(),
        51 => "the certificate does not match its key".into(),
        70 => "no common TLS version, 1.3 is needed".into(),
        80 => "internal TLS error".into(),
        116 => "no client certificate was shown".into(),
        120 => "no common protocol, ALPN \"starling/1\" is needed".into(),
        other => format!("TLS alert {other}"),
    })
}

/// Decides which refusals get a line in the log.
#[derive(Debug, Default)]
pub struct Quieter {
    seen: BTreeMap<IpAddr, (Instant, u64)>,
}

impl Quieter {
    /// Whether to log now, and how many were left out since the last line for this address.
    pub fn allow(&mut self, addr: SocketAddr, now: Instant) -> Option<u64> {
        let ip = addr.ip().to_canonical();
        if let Some((last, left_out)) = self.seen.get_mut(&ip) {
            if now.saturating_duration_since(*last) < QUIET {
                *left_out += 1;
                return None;
            }
        }
        if self.seen.len() >= MAX_ADDRS && !self.seen.contains_key(&ip) {
            if let Some(oldest) = self.seen.iter().min_by_key(|(_, (at, _))| *at).map(|(ip, _)| *ip) {
                self.seen.remove(&oldest);
            }
        }
        let before = self.seen.insert(ip, (now, 0));
        Some(before.map_or(0, |(_, left_out)| left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_one_line_in_ten_seconds_and_the_rest_is_counted() {
        let mut quieter = Quieter::default();
        let addr = |last: u8, port| SocketAddr::from(([10, 0, 0, last], port));
        let start = Instant::now();
        assert_eq!(quieter.allow(addr(1, 1), start), Some(0));
        assert_eq!(quieter.allow(addr(1, 2), start), None);
        assert_eq!(quieter.allow(addr(1, 3), start), None);
        assert_eq!(quieter.allow(addr(2, 1), start), Some(0), "another address is not muted");
        assert_eq!(quieter.allow(addr(1, 1), start + QUIET), Some(2));
    }

    #[test]
    fn the_memory_for_addresses_is_bounded() {
        let mut quieter = Quieter::default();
        let start = Instant::now();
        for i in 0..1000u32 {
            let addr = SocketAddr::new(IpAddr::V4(i.into()), 1);
            assert!(quieter.allow(addr, start + Duration::from_millis(u64::from(i))).is_some());
        }
        assert!(quieter.seen.len() <= MAX_ADDRS);
    }
}
