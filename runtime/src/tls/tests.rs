//! Certificates that fit and that do not, and handshakes over streams in memory.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Mutex;

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A certificate that vouches for itself, and its key.
fn pair(name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (pem("CERTIFICATE", cert.der()), pem("PRIVATE KEY", &signing_key.serialize_der()))
}

/// The server side of a name, and what its clients trust.
pub(crate) fn acceptor(name: &str) -> (Acceptor, Roots) {
    let (cert, key) = pair(name);
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    (acceptor, Roots::from_pem(cert.as_bytes()).unwrap())
}

/// A client's end of a pipe, after the handshake.
pub(crate) async fn client(stream: DuplexStream, roots: Roots, name: &str) -> Wire<DuplexStream> {
    let net = TlsNet::encrypted(Laid(Arc::new(Mutex::new(Some(stream)))), roots);
    net.connect(name, 443).await.unwrap()
}

/// A network whose only connection is one that was laid before.
#[derive(Clone)]
struct Laid(Arc<Mutex<Option<DuplexStream>>>);

struct Nowhere;

impl Listener for Nowhere {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Net for Laid {
    type Stream = DuplexStream;
    type Listener = Nowhere;

    async fn bind(&self, _: SocketAddr) -> io::Result<Nowhere> {
        Ok(Nowhere)
    }

    async fn connect(&self, _: &str, _: u16) -> io::Result<DuplexStream> {
        Ok(self.0.lock().await.take().unwrap())
    }
}

fn laid() -> (Laid, DuplexStream) {
    let (near, far) = tokio::io::duplex(16 << 10);
    (Laid(Arc::new(Mutex::new(Some(near)))), far)
}

fn why(error: &io::Error) -> &NoTls {
    error.get_ref().and_then(|error| error.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_speaks_with_the_server_both_ways() {
    for name in ["site.example", "10.1.2.3"] {
        let (cert, key) = pair(name);
        let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        let (net, far) = laid();
        let net = TlsNet::encrypted(net, Roots::from_pem(cert.as_bytes()).unwrap());
        let (near, far) = tokio::join!(net.connect(name, 443), acceptor.accept(far));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert!(near.is_encrypted() && far.is_encrypted());
        let talk = async {
            near.write_all(&[7; 5_000]).await.unwrap();
            near.flush().await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), 9);
        };
        let echo = async {
            let mut got = vec![0; 5_000];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [7; 5_000]);
            far.write_u8(9).await.unwrap();
            far.flush().await.unwrap();
        };
        tokio::join!(talk, echo);
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_is_not_spoken_to_and_the_error_says_why() {
    let (mine, key) = pair("site.example");
    let (other, _) = pair("site.example");
    for (trusted, name, word) in
        [(&other, "site.example", "invalid peer certificate"), (&mine, "elsewhere", "elsewhere")]
    {
        let acceptor = Acceptor::from_pem(mine.as_bytes(), key.as_bytes()).unwrap();
        let (net, far) = laid();
        let net = TlsNet::encrypted(net, Roots::from_pem(trusted.as_bytes()).unwrap());
        let (near, far) = tokio::join!(net.connect(name, 443), acceptor.accept(far));
        let error = near.err().unwrap();
        assert!(matches!(why(&error), NoTls::Untrusted(words) if words.contains(word)), "{error}");
        assert!(far.is_err(), "the server hears of it");
    }
}

#[tokio::test]
async fn the_certificate_of_an_authority_in_the_place_of_a_servers_is_explained() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["site.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
    let key = pem("PRIVATE KEY", &key.serialize_der());
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let (net, far) = laid();
    let net = TlsNet::encrypted(net, Roots::from_pem(cert.as_bytes()).unwrap());
    let (near, _) = tokio::join!(net.connect("site.example", 443), acceptor.accept(far));
    let error = near.err().unwrap();
    assert!(error.to_string().contains("CA:FALSE"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such() {
    let (cert, _) = pair("site.example");
    let (net, mut far) = laid();
    let net = TlsNet::encrypted(net, Roots::from_pem(cert.as_bytes()).unwrap());
    let answer = async {
        let mut hello = [0; 64];
        far.read_exact(&mut hello).await.unwrap();
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // The rest of the hello, until the client gives up.
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
    };
    let (near, ()) = tokio::join!(net.connect("site.example", 443), answer);
    assert_eq!(*why(&near.err().unwrap()), NoTls::NotSpoken);
}

#[tokio::test]
async fn plain_bytes_are_no_handshake() {
    let (cert, key) = pair("site.example");
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let (mut client, far) = tokio::io::duplex(1 << 10);
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(acceptor.accept(far).await.is_err());
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_by_the_half_that_is_wrong() {
    let (cert, key) = pair("site.example");
    let (_, other) = pair("site.example");
    let bad = |cert: &str, key: &str| Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).err().unwrap();
    assert_eq!(bad(&cert, &other), BadPair::Unfit);
    assert!(matches!(bad("", &key), BadPair::Certificate(_)));
    assert!(matches!(bad(&key, &key), BadPair::Certificate(_)), "a key is no certificate");
    assert!(matches!(bad(&cert, &cert), BadPair::Key(_)), "a certificate is no key");
    let broken = cert.replace("-----END", "-----DNE");
    assert!(matches!(bad(&broken, &key), BadPair::Certificate(_)));
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(bad(noise, &key), BadPair::Certificate(_)), "{:?}", bad(noise, &key));
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let BadPair::Key(words) = bad(&cert, locked) else { panic!("it is the key") };
    assert!(words.contains("passphrase"), "{words}");
    for words in [bad(&cert, &cert), bad(&key, &key), bad(&cert, &other)] {
        let secret = key.lines().nth(1).unwrap();
        assert!(!words.to_string().contains(secret), "a key is shown");
    }
}

#[test]
fn authorities_that_are_none_are_refused() {
    assert!(Roots::from_pem(b"").is_err());
    assert!(Roots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    let (cert, key) = pair("site.example");
    assert!(Roots::from_pem(key.as_bytes()).is_err());
    assert!(
        Roots::from_pem(format!("{cert}{key}").as_bytes()).is_ok(),
        "what is no certificate is passed over"
    );
}
