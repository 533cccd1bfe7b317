//! Revocation acts at once: on open connections, and on whoever comes again.

use crate::raw::Raw;
use crate::renewal::STAMP;
use crate::site::Site;
use redan_protocol::Code;
use redan_protocol::wire::control_host;
use serde_json::json;

const CONNECTIONS: usize = 200;

/// The value of a metric without labels.
async fn metric(site: &Site, name: &str) -> u64 {
    let answer = site.operator().await.get("/metrics").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim()
        .parse()
        .unwrap()
}

/// In the middle of a request: it has begun, and its body is awaited. Left alone, it is answered with a refusal in the end.
async fn busy(site: &Site, bundle: &std::path::Path) -> Raw {
    let mut raw = Raw::known(site, bundle).await;
    let host = control_host(&site.fleet);
    raw.send(&format!(
        "POST /v1/checkin HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\
         expect: 100-continue\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.status().await, "100");
    raw
}

#[tokio::test]
async fn a_revocation_closes_every_open_connection_of_its_device_and_no_other() {
    let site = Site::with("plant.example", CONNECTIONS + 32).await;
    let bundle = site.enrolled("press-1").await;
    let others = site.enrolled("press-2").await;
    let mut other = busy(&site, &others).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(busy(&site, &bundle).await);
    }
    let mut operator = site.operator().await;
    let revoked = operator.post("/v1/devices/press-1/revoke", &json!({})).await;
    assert_eq!(revoked.status, 200);
    // With the answer they are closed.
    assert_eq!(metric(&site, "redan_device_connections").await, 1, "press-2's");
    for raw in &mut open {
        assert_eq!(raw.rest().await, "", "closed without another word");
    }
    other.send("0123456789").await;
    assert_eq!(other.status().await, "400", "of another device: answered as ever");
    // Whoever comes again is told why.
    let mut again = site.connect(&bundle).await.unwrap();
    assert_eq!(again.get(STAMP).await.refusal(), (403, Code::CertificateRevoked));
}
