//! EST spoken by others: requests made by the `openssl` command, sent by Python's TLS and HTTP (RFC 7030; attacks.md E03, E04).
//!
//! Without `python3` these tests say so and are left out; CI has it and insists (`CI` is set there).

use crate::site::Site;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_protocol::wire::{CSR_LEN_MAX, Problem, control_host, enrol_host};
use redan_protocol::{Code, Digest};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CACERTS: &str = "/.well-known/est/cacerts";
const ENROLL: &str = "/.well-known/est/simpleenroll";
const REENROLL: &str = "/.well-known/est/simplereenroll";
const PKCS10: &str = "application/pkcs10";
const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// Whether there is another stack to ask. Its absence is an error where nobody would read about it.
fn python() -> bool {
    let ran = Command::new("python3")
        .args(["-c", "import ssl"])
        .stdin(Stdio::null())
        .status();
    let there = ran.is_ok_and(|status| status.success());
    assert!(there || std::env::var_os("CI").is_none(), "python3 is missing");
    if !there {
        eprintln!("left out: there is no python3 to speak EST with");
    }
    there
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let ran = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    ran.stdout
}

/// Somebody with a key file, a certificate of it, and nothing of ours.
struct Stranger {
    folder: PathBuf,
    key: String,
    certificate: String,
    port: String,
    ca: String,
}

/// Status, content type, body.
type Said = (u16, String, String);

impl Stranger {
    fn new(site: &Site, name: &str) -> Self {
        let folder = site.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let at = |file: &str| folder.join(file).to_str().unwrap().to_owned();
        let (key, certificate) = (at("key.pem"), at("certificate.pem"));
        openssl(&[&["genpkey"], &P256[..], &["-out", &key]].concat());
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-subj",
            "/CN=me",
            "-out",
            &certificate,
        ]);
        Self {
            key,
            certificate,
            port: site.address.port().to_string(),
            ca: site.founded().join("public/ca.pem").to_str().unwrap().to_owned(),
            folder,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn spki(&self) -> Digest {
        Digest::of(&openssl(&[
            "pkey", "-in", &self.key, "-pubout", "-outform", "DER",
        ]))
    }

    /// A request made by `openssl`, DER.
    fn request(key: &str, more: &[&str]) -> Vec<u8> {
        let plain = ["req", "-new", "-key", key, "-outform", "DER", "-subj", "/"];
        openssl(&[&plain, more].concat())
    }

    async fn ask(&self, host: &str, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control/est.py");
        let mut command = tokio::process::Command::new("python3");
        command.arg(script).args([
            method,
            host,
            &self.port,
            path,
            &self.ca,
            &self.certificate,
            &self.key,
        ]);
        if let Some((kind, bytes)) = body {
            let file = self.file("body");
            std::fs::write(&file, bytes).unwrap();
            command.args([kind, &file]);
        }
        let ran = command.stdin(Stdio::null()).output().await.unwrap();
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let mut parts = text.splitn(3, '\n').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        (next().parse().unwrap(), next(), next())
    }

    /// The certificates in a good answer, each as text.
    fn certificates(&self, said: &Said) -> Vec<String> {
        let (status, kind, body) = said;
        assert_eq!(
            (*status, kind.as_str()),
            (200, "application/pkcs7-mime; smime-type=certs-only"),
            "{body}"
        );
        let file = self.file("answer.p7");
        std::fs::write(&file, STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap();
        let text = openssl(&["pkcs7", "-inform", "DER", "-in", &file, "-print_certs"]);
        let text = String::from_utf8(text).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        let blocks = text.split_inclusive(end).filter(|block| block.ends_with(end));
        blocks
            .map(|block| block[block.find("-----BEGIN").unwrap()..].to_owned())
            .collect()
    }
}

fn refusal(said: &Said) -> (u16, Code) {
    assert_eq!(said.1, "application/problem+json", "{}", said.2);
    let problem: Problem = serde_json::from_str(&said.2).unwrap();
    (said.0, problem.code)
}

/// A certificate as `openssl` reads it, without what differs between any two: serial number, dates, signature.
fn template(pem: &str, folder: &Path) -> String {
    let file = folder.join("one.pem");
    std::fs::write(&file, pem).unwrap();
    let text = openssl(&["x509", "-in", file.to_str().unwrap(), "-noout", "-text"]);
    let text = String::from_utf8(text).unwrap();
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "Serial Number:" {
            lines.next();
        } else if line.trim_start().starts_with("Signature Value") {
            break;
        } else if !line.trim_start().starts_with("Not ") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stack_enrols_and_renews_and_its_wishes_do_not_show_in_the_certificate() {
    if !python() {
        return;
    }
    let site = Site::open().await;
    let (enrol, control) = (enrol_host(&site.fleet), control_host(&site.fleet));
    let mut me = Stranger::new(&site, "me");
    let request = json!({"device": "press-1", "spki": me.spki()});
    site.operator()
        .await
        .post("/v1/devices/admit", &request)
        .await
        .json();

    let root = me.certificates(&me.ask(&enrol, "GET", CACERTS, None).await);
    let ca = std::fs::read_to_string(&me.ca).unwrap();
    assert_eq!(root.len(), 1);
    assert_eq!(template(&root[0], &me.folder), template(&ca, &me.folder));

    let plain = STANDARD.encode(Stranger::request(&me.key, &[]));
    let plain = me
        .ask(&enrol, "POST", ENROLL, Some((PKCS10, plain.as_bytes())))
        .await;
    let issued = me.certificates(&plain);
    assert_eq!(issued.len(), 2);
    let leaf = |certificates: &[String]| {
        let leaves = certificates.iter().map(|pem| template(pem, &me.folder));
        leaves
            .filter(|text| text.contains("CA:FALSE"))
            .collect::<Vec<_>>()
    };
    let wanted = leaf(&issued);
    assert_eq!(wanted.len(), 1);
    for line in [
        "URI:spiffe://plant.example/device/press-1, DNS:press-1.device.plant.example",
        "TLS Web Client Authentication",
        "Digital Signature",
    ] {
        assert!(wanted[0].contains(line), "{line:?} is not in {}", wanted[0]);
    }
    // One wish a request, and all at once: every line of the certificate but serial number, dates and signature stays.
    let wishes = [
        "subjectAltName=URI:spiffe://plant.example/operator/ada,DNS:control.plant.example,IP:127.0.0.1,email:a@b.example",
        "basicConstraints=critical,CA:TRUE,pathlen:3",
        "keyUsage=critical,keyCertSign,cRLSign",
        "extendedKeyUsage=serverAuth,codeSigning,anyExtendedKeyUsage",
        "nameConstraints=permitted;DNS:example",
        "subjectKeyIdentifier=00:11:22",
        "1.2.3.4.5=ASN1:UTF8String:more",
        "tlsfeature=status_request",
        "certificatePolicies=1.2.3.4",
    ];
    let named = ["-subj", "/O=Redan/CN=spiffe:\\/\\/plant.example\\/control"];
    let every: Vec<&str> = wishes.iter().flat_map(|wish| ["-addext", wish]).collect();
    let alone = wishes.iter().map(|wish| vec!["-addext", wish]);
    for more in alone.chain([named.to_vec(), [&named[..], &every].concat()]) {
        let request = STANDARD.encode(Stranger::request(&me.key, &more));
        let said = me
            .ask(&enrol, "POST", ENROLL, Some((PKCS10, request.as_bytes())))
            .await;
        assert_eq!(leaf(&me.certificates(&said)), wanted, "{more:?}");
    }

    // Renewal, with a new key and what was issued.
    let chain = me.file("chain.pem");
    let is_leaf = |pem: &String| template(pem, &me.folder).contains("CA:FALSE");
    let (mut ordered, issuers): (Vec<String>, Vec<String>) = issued.iter().cloned().partition(is_leaf);
    ordered.extend(issuers);
    std::fs::write(&chain, ordered.concat()).unwrap();
    me.certificate = chain;
    let next = me.file("next.pem");
    openssl(&[&["genpkey"], &P256[..], &["-out", &next]].concat());
    let request = STANDARD.encode(Stranger::request(&next, &every));
    let said = me
        .ask(&control, "POST", REENROLL, Some((PKCS10, request.as_bytes())))
        .await;
    let without_key = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        let hexadecimal =
            |line: &&str| line.contains(':') && line.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        lines
            .filter(|line| !hexadecimal(line))
            .map(str::to_owned)
            .collect()
    };
    let renewed = me.certificates(&said);
    let renewed: Vec<String> = renewed.iter().map(|pem| template(pem, &me.folder)).collect();
    let renewed = renewed.iter().find(|text| text.contains("CA:FALSE")).unwrap();
    assert_eq!(without_key(renewed), without_key(&wanted[0]));
    assert_ne!(renewed, &wanted[0], "it is for another key");
}

/// What is sent, with which type, how it is made, and what is answered.
type Case = (&'static str, &'static str, Vec<u8>, (u16, Code));

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of requests")]
async fn requests_of_another_stack_that_prove_nothing_get_nothing() {
    if !python() {
        return;
    }
    let site = Site::open().await;
    let enrol = enrol_host(&site.fleet);
    let me = Stranger::new(&site, "me");
    let request = json!({"device": "press-1", "spki": me.spki()});
    site.operator()
        .await
        .post("/v1/devices/admit", &request)
        .await
        .json();
    let good = Stranger::request(&me.key, &[]);
    let text = STANDARD.encode(&good);
    let changed = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut der = good.clone();
        edit(&mut der);
        STANDARD.encode(der).into_bytes()
    };
    let other = me.file("other.pem");
    openssl(&[&["genpkey"], &P256[..], &["-out", &other]].concat());
    let rsa = me.file("rsa.pem");
    openssl(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        &rsa,
    ]);
    let limit = usize::try_from(CSR_LEN_MAX.get()).unwrap();
    let csr = (400, Code::CsrInvalid);
    let kind = (415, Code::WrongContentType);
    let cases: Vec<Case> = vec![
        ("no base64", PKCS10, b"*** not base64 ***".to_vec(), csr),
        (
            "base64 cut off",
            PKCS10,
            text.as_bytes()[..text.len() - 3].to_vec(),
            csr,
        ),
        ("DER and no base64", PKCS10, good.clone(), csr),
        (
            "PEM",
            PKCS10,
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
                .into_bytes(),
            csr,
        ),
        ("nothing", PKCS10, Vec::new(), csr),
        (
            "base64 of nothing much",
            PKCS10,
            STANDARD.encode("hello").into_bytes(),
            csr,
        ),
        (
            "a signature with one bit changed",
            PKCS10,
            changed(&|der| *der.last_mut().unwrap() ^= 1),
            csr,
        ),
        (
            "a name with one bit changed",
            PKCS10,
            changed(&|der| {
                let at = der.windows(2).position(|two| two == [0x03, 0x42]).unwrap();
                der[at + 10] ^= 1;
            }),
            csr,
        ),
        (
            "more after the end",
            PKCS10,
            changed(&|der| der.extend([0x05, 0x00])),
            csr,
        ),
        (
            "somebody else's key",
            PKCS10,
            STANDARD.encode(Stranger::request(&other, &[])).into_bytes(),
            csr,
        ),
        (
            "an RSA key",
            PKCS10,
            STANDARD.encode(Stranger::request(&rsa, &[])).into_bytes(),
            csr,
        ),
        (
            "a certificate",
            PKCS10,
            STANDARD
                .encode(openssl(&["x509", "-in", &me.certificate, "-outform", "DER"]))
                .into_bytes(),
            csr,
        ),
        (
            "one byte too long",
            PKCS10,
            vec![b'A'; limit + 1],
            (413, Code::TooLarge),
        ),
        ("JSON", "application/json", text.clone().into_bytes(), kind),
        (
            "no type of ours",
            "application/pkcs10x",
            text.clone().into_bytes(),
            kind,
        ),
        (
            "a form",
            "application/x-www-form-urlencoded",
            text.clone().into_bytes(),
            kind,
        ),
    ];
    for (what, kind, body, wanted) in cases {
        let said = me.ask(&enrol, "POST", ENROLL, Some((kind, &body))).await;
        assert_eq!(refusal(&said), wanted, "{what}");
    }
    let said = me.ask(&enrol, "GET", ENROLL, None).await;
    assert_eq!(refusal(&said), (405, Code::WrongMethod));
    let said = me
        .ask(&enrol, "POST", ENROLL, Some((PKCS10, text.as_bytes())))
        .await;
    assert_eq!(
        me.certificates(&said).len(),
        2,
        "the good one still gets its certificate"
    );
}
