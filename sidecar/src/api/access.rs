//! Who may ask: any web page can make a browser send requests to a loopback port, so names and origins are checked.

use super::exec::Refusal;
use axum::http::{header, HeaderMap, StatusCode, Uri};
use std::net::IpAddr;

/// What is allowed in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Host names besides `localhost` and IP addresses, lower case.
    pub hosts: Vec<String>,
    /// The bearer token that every request must bear, if one is configured.
    pub token: Option<String>,
}

impl Access {
    /// Checks the headers of a request. A page that rebinds its own name to this address is found by `Host`, one that sends
    /// from elsewhere by `Origin`. An address as `Host` cannot be rebound.
    ///
    /// # Errors
    /// 421 for a foreign host name, 403 for a foreign origin, 401 without the token.
    pub fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let mut named = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), named.next(), named.next()) {
            (_, _, Some(_)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "there is more than one Host header")),
            (Some(authority), ..) => Some(authority.as_str()),
            (None, Some(value), _) => value.to_str().ok(),
            (None, None, _) => None,
        };
        let host = host.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the Host header is missing"))?;
        if !self.serves(host) {
            let message = format!("this node does not serve the host name {}; allow it with --http-host", quoted(host));
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, message));
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or("");
            let own = ["http://", "https://"].iter().find_map(|s| origin.strip_prefix(s));
            if !own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "requests of web pages from elsewhere are refused"));
            }
        }
        self.authorized(headers)
    }

    fn serves(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(""),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.');
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    fn authorized(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given =
            given.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        if given.is_some_and(|(_, given)| same(given.trim().as_bytes(), token.as_bytes())) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::UNAUTHORIZED, "a bearer token is needed: Authorization: Bearer TOKEN"))
    }
}

/// Compares without telling by its time where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(access: &Access, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        access.check(&map, &Uri::from_static("/sql")).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_page_cannot_reach_the_port_under_a_name_of_its_own() {
        let access = Access { hosts: vec!["db.internal".into()], token: None };
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "10.1.2.3", "db.internal:80"] {
            assert_eq!(check(&access, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "", "[evil]"] {
            assert_eq!(check(&access, &[("host", host)]), 421, "{host}");
        }
        assert_eq!(check(&access, &[]), 400);
        assert_eq!(check(&access, &[("host", "localhost"), ("host", "evil.example")]), 400, "which of them is meant?");
    }

    #[test]
    fn a_page_from_elsewhere_is_refused_by_its_origin() {
        let access = Access::default();
        let host = ("host", "127.0.0.1:8080");
        assert_eq!(check(&access, &[host, ("origin", "http://127.0.0.1:8080")]), 200);
        for origin in ["https://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1"] {
            assert_eq!(check(&access, &[host, ("origin", origin)]), 403, "{origin}");
            assert_eq!(
                check(&access, &[host, ("origin", "http://127.0.0.1:8080"), ("origin", origin)]),
                403,
                "{origin}"
            );
        }
    }

    #[test]
    fn a_configured_token_must_be_borne() {
        let access = Access { hosts: Vec::new(), token: Some("s3cret".into()) };
        let host = ("host", "localhost");
        assert_eq!(check(&access, &[host]), 401);
        assert_eq!(check(&access, &[host, ("authorization", "Bearer s3creT")]), 401);
        assert_eq!(check(&access, &[host, ("authorization", "Basic s3cret")]), 401);
        assert_eq!(check(&access, &[host, ("authorization", "bearer s3cret")]), 200);
    }
}
