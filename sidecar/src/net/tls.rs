//! Who is who: each node issues itself a certificate from the cluster's authority, naming its site and incarnation, and both
//! ends verify the other's, in TLS 1.3 only.

use crate::cluster::{ClusterKey, BACKDATE};
use crate::error::Error;
use crate::limits::MAX_PEER_STREAMS;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::RootCertStore;
use starling_crdt::SiteId;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;

/// The application protocol; its number is the wire's major version.
pub const ALPN: &[u8] = b"starling/1";
/// The name that every node's certificate bears; which site it is comes from another name in it.
pub const SERVER_NAME: &str = "node.starling";
const SITE_SUFFIX: &str = ".node.starling";
const INCARNATION_SUFFIX: &str = ".incarnation.starling";
const VALID: time::Duration = time::Duration::days(10 * 365);

/// A site in one of its processes, as its certificate names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerId {
    /// The replica.
    pub site: SiteId,
    /// Its process: the higher one is newer.
    pub incarnation: u64,
}

/// Both ends' configuration.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For connections from others.
    pub server: quinn::ServerConfig,
    /// For connections to others.
    pub client: quinn::ClientConfig,
}

impl Identity {
    /// Issues this process its certificate.
    ///
    /// # Errors
    /// When the cluster key cannot be used.
    pub fn issue(key: &ClusterKey, me: PeerId) -> Result<Self, Error> {
        Self::build(key, me).map_err(|e| Error::system("making this node's certificate", e))
    }

    fn build(key: &ClusterKey, me: PeerId) -> Result<Self, Box<dyn std::error::Error>> {
        let (cert, node_key) = node_certificate(key, me)?;
        let authority = CertificateDer::from_pem_slice(key.ca_cert_pem.as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());

        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.clone()], node_key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
        server.transport_config(Arc::new(transport()?));

        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], node_key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        client.transport_config(Arc::new(transport()?));
        Ok(Self { server, client })
    }
}

fn node_certificate(
    key: &ClusterKey,
    me: PeerId,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Box<dyn std::error::Error>> {
    let issuer = Issuer::from_ca_cert_pem(&key.ca_cert_pem, KeyPair::from_pem(&key.ca_key_pem)?)?;
    let node_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Starling node {}", me.site));
    for name in
        [SERVER_NAME.to_owned(), format!("{}{SITE_SUFFIX}", me.site), format!("{}{INCARNATION_SUFFIX}", me.incarnation)]
    {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BACKDATE, now + VALID);
    let cert = params.signed_by(&node_key, &issuer)?;
    let node_key = PrivateKeyDer::try_from(node_key.serialize_der())?;
    Ok((cert.der().clone(), node_key))
}

/// QUIC tuned for replication within a data centre: a cut is noticed in 15 s, acknowledgements do not dawdle.
fn transport() -> Result<quinn::TransportConfig, Box<dyn std::error::Error>> {
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.max_ack_delay(Some(Duration::from_millis(5)));
    let mut transport = quinn::TransportConfig::default();
    transport
        .initial_rtt(Duration::from_millis(20))
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .max_idle_timeout(Some(Duration::from_secs(15).try_into()?))
        .max_concurrent_bidi_streams(MAX_PEER_STREAMS.into())
        .max_concurrent_uni_streams(2u8.into())
        .stream_receive_window(quinn::VarInt::from_u32(4 * 1024 * 1024))
        .receive_window(quinn::VarInt::from_u32(16 * 1024 * 1024))
        .send_window(8 * 1024 * 1024)
        .datagram_receive_buffer_size(Some(256 * 1024))
        .datagram_send_buffer_size(64 * 1024);
    Ok(transport)
}

/// The peer that a verified certificate names.
///
/// # Errors
/// When it names none, or more than one.
pub fn peer_id(connection: &quinn::Connection) -> Result<PeerId, String> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("the peer showed no certificate")?;
    let first = chain.first().ok_or("the peer showed no certificate")?;
    named_by(first)
}

fn named_by(cert: &CertificateDer<'_>) -> Result<PeerId, String> {
    let (_, cert) =
        x509_parser::parse_x509_certificate(cert).map_err(|e| format!("its certificate cannot be read: {e}"))?;
    let names = cert
        .subject_alternative_name()
        .map_err(|e| format!("its certificate's names cannot be read: {e}"))?
        .ok_or("its certificate bears no names")?;
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let (mut site, mut incarnation) = (None, None);
    for name in dns {
        if let Some(uuid) = name.strip_suffix(SITE_SUFFIX).and_then(|text| Uuid::parse_str(text).ok()) {
            if site.replace(SiteId(*uuid.as_bytes())).is_some() {
                return Err("its certificate names two sites".into());
            }
        }
        if let Some(number) = name.strip_suffix(INCARNATION_SUFFIX).and_then(|text| text.parse().ok()) {
            incarnation = Some(number);
        }
    }
    match (site, incarnation) {
        (Some(site), Some(incarnation)) => Ok(PeerId { site, incarnation }),
        _ => Err("its certificate names no site".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_certificate_names_its_site_and_incarnation() {
        let me = PeerId { site: SiteId([0xab; 16]), incarnation: 1_700_000_000_123 };
        let (cert, _) = node_certificate(&ClusterKey::generate().unwrap(), me).unwrap();
        assert_eq!(named_by(&cert), Ok(me));
    }

    #[test]
    fn a_certificate_without_a_site_is_no_peer() {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["node.starling".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert!(named_by(cert.der()).unwrap_err().contains("no site"));
        assert!(named_by(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
