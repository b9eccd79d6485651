//! The cluster key file: the cluster's id, its certificate authority and that authority's key, as text.
//!
//! Whoever holds the file is in the cluster. It is written with mode 0600 and never overwritten.

use crate::error::Error;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const FIRST_LINE: &str = "starling-cluster-key 1";
const ADVICE: &str =
    "# Whoever holds this file is in the cluster. Copy it to each node, mode 0600; show it to nobody else.";
const MAX_BYTES: u64 = 64 * 1024;

/// Clocks of machines differ; certificates are valid from this long before they are made.
pub const BACKDATE: Duration = Duration::hours(48);
const CA_VALID: Duration = Duration::days(100 * 365);

/// A cluster's identity and the means to issue node certificates.
#[derive(Clone)]
pub struct ClusterKey {
    /// The cluster.
    pub id: Uuid,
    /// The authority's certificate (PEM).
    pub ca_cert_pem: String,
    /// Its key (PKCS#8 PEM).
    pub ca_key_pem: String,
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ClusterKey {
    /// Draws a new cluster.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        let failed = |e: rcgen::Error| Error::system("making the cluster's certificate", e);
        let id = Uuid::new_v4();
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Starling cluster {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BACKDATE, now + CA_VALID);
        let cert = params.self_signed(&key).map_err(failed)?;
        Ok(Self { id, ca_cert_pem: cert.pem(), ca_key_pem: key.serialize_pem() })
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let (cert, key) = (self.ca_cert_pem.trim(), self.ca_key_pem.trim());
        format!("{FIRST_LINE}\n{ADVICE}\ncluster-id {}\n{}\n{}\n", self.id, unix(cert), unix(key))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = unix(text);
        let mut lines = text.lines();
        match lines.next().map(str::trim_end) {
            Some(FIRST_LINE) => {}
            Some(other) if other.starts_with("starling-cluster-key ") => {
                return Err(format!("its format \"{other}\" is not known to this version of starling"));
            }
            _ => return Err("this is not a cluster key file; make one with: starling cluster create --out FILE".into()),
        }
        let id = lines
            .find_map(|line| line.strip_prefix("cluster-id "))
            .and_then(|id| Uuid::parse_str(id.trim()).ok())
            .ok_or("the line \"cluster-id UUID\" is missing or wrong")?;
        let key = Self {
            id,
            ca_cert_pem: pem_block(&text, "CERTIFICATE").ok_or("the certificate is missing or cut short")?,
            ca_key_pem: pem_block(&text, "PRIVATE KEY").ok_or("the private key is missing or cut short")?,
        };
        let pair = KeyPair::from_pem(&key.ca_key_pem).map_err(|e| format!("the private key cannot be read: {e}"))?;
        rcgen::Issuer::from_ca_cert_pem(&key.ca_cert_pem, pair)
            .map_err(|e| format!("the certificate cannot be read: {e}"))?;
        Ok(key)
    }

    /// Writes a new file of mode 0600; an existing one is never touched.
    ///
    /// # Errors
    /// When it is there already or cannot be written.
    pub fn create_file(&self, path: &Path) -> Result<(), Error> {
        let failed = |problem: String| Error::ClusterKey { path: path.to_owned(), problem, usage: false };
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(|e| {
            failed(match e.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    "is there already and is not overwritten; give another --out".into()
                }
                _ => format!("cannot be written: {e}"),
            })
        })?;
        let written = file.write_all(self.render().as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|e| {
            let _ = std::fs::remove_file(path);
            failed(format!("cannot be written: {e}"))
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no cluster key.
    pub fn read_file(path: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::ClusterKey { path: path.to_owned(), problem, usage: true };
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            return Err(failed("this is not a cluster key file".into()));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "cluster key file is readable by others: chmod 600 it");
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        Self::parse(&text).map_err(failed)
    }
}

fn unix(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn pem_block(text: &str, label: &str) -> Option<String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let from = text.find(&begin)?;
    let len = text.get(from..)?.find(&end)? + end.len();
    Some(format!("{}\n", text.get(from..from + len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_reads_back_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let key = ClusterKey::generate().unwrap();
        key.create_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = ClusterKey::read_file(&path).unwrap();
        assert_eq!((read.id, read.render()), (key.id, key.render()));

        let error = ClusterKey::generate().unwrap().create_file(&path).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("not overwritten"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), key.render());
    }

    #[test]
    fn what_is_not_a_key_file_is_refused_with_a_reason() {
        let good = ClusterKey::generate().unwrap().render();
        assert!(ClusterKey::parse(&good.replace('\n', "\r\n")).is_ok(), "an editor's line ends do no harm");
        let cut = good.get(..good.len() - 40).unwrap();
        let other_version = good.replace("key 1", "key 9");
        let no_id = good.replace("cluster-id", "cluster-ix");
        let bad_key = good.replace("-----BEGIN PRIVATE KEY-----\nM", "-----BEGIN PRIVATE KEY-----\nA");
        for (text, reason) in [
            ("", "not a cluster key file"),
            ("hello", "not a cluster key file"),
            (other_version.as_str(), "not known"),
            (no_id.as_str(), "cluster-id"),
            (cut, "private key"),
            (bad_key.as_str(), "private key"),
        ] {
            let problem = ClusterKey::parse(text).unwrap_err();
            assert!(problem.contains(reason), "{problem}");
        }
    }
}
