//! TLS over loopback, with a certificate made for the test.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_runtime::real::RealNet;
use tidegate_runtime::seam::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;

fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (cert.der().clone(), PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap())
}

/// A server that sends back the first byte of each connection. Its port.
async fn echo(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut listener = RealNet.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us leaves during the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let byte = stream.read_u8().await.unwrap();
            stream.write_u8(byte).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    port
}

fn dial(trusted: CertificateDer<'static>) -> Dial<RealNet> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let limit = Duration::from_secs(20);
    Dial {
        net: RealNet,
        tls: Some(tls_with(roots).unwrap()),
        connect_timeout: limit,
        silence: limit,
        timeouts: Timeouts::default(),
    }
}

#[tokio::test]
async fn bytes_go_both_ways_over_tls_with_a_certificate_that_is_trusted() {
    let (certificate, key) = certificate();
    let port = echo(certificate.clone(), key).await;
    let url: Uri = format!("https://localhost:{port}/").parse().unwrap();
    let wire = dial(certificate).call(url).await.unwrap();
    let mut wire = wire.into_inner();
    assert!(matches!(wire, Wire::Tls(_)));
    wire.write_u8(42).await.unwrap();
    wire.flush().await.unwrap();
    assert_eq!(wire.read_u8().await.unwrap(), 42);
}

#[tokio::test]
async fn a_store_that_cannot_prove_its_name_is_not_connected() {
    let (mine, key) = certificate();
    let (other, _) = certificate();
    let port = echo(mine.clone(), key).await;
    let url = |host: &str| format!("https://{host}:{port}/").parse::<Uri>().unwrap();
    for (trusted, host) in [(other, "localhost"), (mine, "127.0.0.1")] {
        let refused = dial(trusted).call(url(host)).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    }
}
