//! What `starling run` was told, checked.

use crate::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The checked configuration of one node.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The database file, as given.
    pub db: PathBuf,
    /// The cluster key file.
    pub cluster_key: PathBuf,
    /// Where QUIC listens.
    pub listen: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Seeds as `HOST:PORT`, resolved when they are needed.
    pub join: Vec<String>,
    /// What others are told to dial, if it is not the listen address.
    pub advertise: Option<SocketAddr>,
    /// Names under which HTTP may be reached besides `localhost` and IP addresses.
    pub http_hosts: Vec<String>,
    /// The bearer token that HTTP asks for.
    pub http_token: Option<String>,
}

/// The address of a `HOST:PORT` flag; a name is resolved once.
///
/// # Errors
/// Names the flag.
pub fn socket_addr(flag: &str, text: &str) -> Result<SocketAddr, Error> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    seed(flag, text)?;
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addrs| addrs.next())
        .ok_or_else(|| Error::Usage(format!("{flag} {text}: the name does not resolve to an address")))
}

/// The address of a `HOST:PORT` flag that others are told to dial: nobody can dial port 0.
///
/// # Errors
/// Names the flag.
pub fn dialled_addr(flag: &str, text: &str) -> Result<SocketAddr, Error> {
    match socket_addr(flag, text)? {
        addr if addr.port() == 0 => {
            Err(Error::Usage(format!("{flag} {text}: port 0 cannot be dialled; give the real one")))
        }
        addr => Ok(addr),
    }
}

/// The items of a list; a variable that is set to nothing gives one empty item, which means none.
#[must_use]
pub fn items(list: Vec<String>) -> Vec<String> {
    list.into_iter().filter(|item| !item.is_empty()).collect()
}

/// Checks the form of a `HOST:PORT`; whether the name resolves is nobody's business before it is needed.
///
/// # Errors
/// Names the flag.
pub fn seed(flag: &str, text: &str) -> Result<String, Error> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let wrong = || Error::Usage(format!("{flag} {text}: expected HOST:PORT, for an IPv6 address [ADDR]:PORT"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(name_like) || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// Reads a token file: one line, not empty.
///
/// # Errors
/// Names the file and what is wrong.
pub fn token(path: &std::path::Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::Usage(format!("--http-token-file {}: cannot be read: {e}", path.display())))?;
    let token = text.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        let problem = "expected one line of printable ASCII without spaces";
        return Err(Error::Usage(format!("--http-token-file {}: {problem}", path.display())));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_where_they_are_given() {
        assert!(socket_addr("--listen", "[::]:8787").is_ok());
        assert!(socket_addr("--listen", "127.0.0.1:0").is_ok());
        for wrong in ["", "8787", "host", "host:", "host:x", "host:70000", "::1:80", "http://a:1"] {
            let error = socket_addr("--listen", wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
            assert!(error.to_string().contains("--listen"));
        }
        assert_eq!(dialled_addr("--advertise", "127.0.0.1:0").unwrap_err().exit_code(), 2);
        assert!(
            dialled_addr("--advertise", "0.0.0.0:8787").is_ok(),
            "the address is the one that the connection comes from"
        );
        assert_eq!(items(vec![String::new(), "a:1".into()]), ["a:1"]);
        assert!(seed("--join", "not-there-yet.example:8787").is_ok(), "a seed may resolve later");
    }
}
