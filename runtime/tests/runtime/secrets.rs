//! Secrets: added by the host to requests of their rule, and to nothing else; never in the guest's hands.

use crate::device::Device;
use crate::egress::brokered;
use crate::far_end::FarEnd;
use crate::guests;
use crate::server::{Seen, certified, ok, recording};
use crate::upstream::believing;
use redan_policy::EffectiveGrant;
use redan_policy::grant::Injection;
use redan_protocol::Code;
use redan_protocol::ipc::{SecretValue, ToExecutor};

const VALUE: &str = "Bearer 7h3-v4lu3-0f-7h3-s3cr37";

fn injecting(certificate: &str) -> EffectiveGrant {
    let mut grant = believing(certificate);
    grant.secrets.push(Injection {
        secret: "token".to_owned(),
        net: grant.net_http[0].id.clone(),
        header: "authorization".to_owned(),
    });
    grant
}

/// As the agent does it: the values just before the load.
fn outcome(device: &mut Device, grant: &EffectiveGrant) -> Result<(), Code> {
    let slot = device.next_slot();
    let values = vec![("token".to_owned(), SecretValue::new(VALUE.as_bytes().to_vec()))];
    device.say(&ToExecutor::Secrets { slot, values }, &[]);
    let slot = device.load(&guests::hostile_job(), grant)?;
    device.run(slot)
}

fn upstream(host: &str) -> (Device, Seen, String) {
    let (certificate, config) = certified(host);
    let (address, seen) = recording(Some(config), |_| ok());
    let (device, _) = brokered(FarEnd::answering(move |_| Ok(address)));
    (device, seen, certificate)
}

#[test]
fn a_secret_reaches_the_upstream_of_its_rule() {
    let (mut device, seen, certificate) = upstream("allowed.example");
    assert_eq!(outcome(&mut device, &injecting(&certificate)), Ok(()));
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen[0].matches(&format!("authorization: {VALUE}\r\n")).count(),
        1,
        "{seen:?}"
    );
}

#[test]
fn a_secret_does_not_go_with_the_requests_of_another_rule() {
    // The guest asks another host it may reach, directly or led there by a redirect of the first.
    let (certificate, config) = certified("allowed.example");
    let redirect = "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://other.example/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (first, seen_first) = recording(Some(config), move |_| redirect.to_owned());
    let (other_certificate, config) = certified("other.example");
    let (second, seen_second) = recording(Some(config), |_| ok());
    let (mut device, _) = brokered(FarEnd::answering(move |question| {
        Ok(if question.host == "other.example" {
            second
        } else {
            first
        })
    }));
    let mut grant = injecting(&certificate);
    let mut other = crate::grants::rule("https", "other.example", 443);
    other.id = "other".to_owned();
    other.roots = redan_policy::grant::Roots::Bundle("other-ca".to_owned());
    grant
        .bundles
        .insert("other-ca".to_owned(), vec![other_certificate]);
    grant.net_http.push(other);
    grant.env.insert("FOLLOW".to_owned(), "yes".to_owned());
    assert_eq!(outcome(&mut device, &grant), Ok(()));
    assert!(seen_first.lock().unwrap()[0].contains(VALUE));
    let second = seen_second.lock().unwrap();
    assert!(
        second[0].starts_with("GET / ") && !second[0].contains("authorization"),
        "{second:?}"
    );
}

#[test]
fn a_guest_that_sets_the_field_itself_is_refused() {
    let (mut device, seen, certificate) = upstream("allowed.example");
    for field in [
        "authorization: mine",
        "Authorization: mine",
        "AUTHORIZATION: mine",
    ] {
        let mut grant = injecting(&certificate);
        grant.env.insert("HEADERS".to_owned(), field.to_owned());
        assert_eq!(outcome(&mut device, &grant), Err(Code::FieldForbidden), "{field}");
    }
    let mut grant = injecting(&certificate);
    grant.env.insert("METHOD".to_owned(), "POST".to_owned());
    grant.env.insert("UPLOAD".to_owned(), "4096".to_owned());
    grant
        .env
        .insert("TRAILERS".to_owned(), "authorization: mine".to_owned());
    assert_eq!(
        outcome(&mut device, &grant),
        Err(Code::FieldForbidden),
        "in trailers"
    );
    assert!(
        !seen
            .lock()
            .unwrap()
            .iter()
            .any(|request| request.contains("mine"))
    );
}

#[test]
fn a_secret_never_leaves_without_tls() {
    // A grant that policy would not make: the host holds to it all the same.
    let (address, seen) = recording(None, |_| ok());
    let (mut device, _) = brokered(FarEnd::answering(move |_| Ok(address)));
    let (certificate, _) = certified("allowed.example");
    let mut grant = injecting(&certificate);
    grant.net_http = vec![crate::grants::rule("http", "allowed.example", 80)];
    grant
        .env
        .insert("TARGET".to_owned(), "http://allowed.example/".to_owned());
    assert_eq!(outcome(&mut device, &grant), Ok(()));
    let seen = seen.lock().unwrap();
    assert!(
        !seen[0].contains(VALUE) && !seen[0].contains("authorization"),
        "{seen:?}"
    );
}

#[test]
fn whom_nobody_believes_is_sent_no_secret() {
    // The attacker answers at the upstream's address, with a certificate of its own.
    let (mut device, seen, _) = upstream("allowed.example");
    let (other, _) = certified("allowed.example");
    assert_eq!(
        outcome(&mut device, &injecting(&other)),
        Err(Code::UpstreamUntrusted)
    );
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[test]
fn a_grant_whose_secret_was_not_handed_over_does_not_load() {
    let (mut device, _, certificate) = upstream("allowed.example");
    let loaded = device.load(&guests::hostile_job(), &injecting(&certificate));
    assert_eq!(loaded, Err(Code::SecretMissing));
}

#[test]
fn a_secret_is_nowhere_in_what_the_workload_leaves_on_the_device() {
    let (mut device, _, certificate) = upstream("allowed.example");
    assert_eq!(outcome(&mut device, &injecting(&certificate)), Ok(()));
    let mut refused = injecting(&certificate);
    refused
        .env
        .insert("HEADERS".to_owned(), "authorization: mine".to_owned());
    assert_eq!(outcome(&mut device, &refused), Err(Code::FieldForbidden));
    let mut folders = vec![device.data.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(VALUE.len())
                .any(|window| window == VALUE.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    assert!(files > 0, "the guest's log is there");
}
