//! Policy takes something from a running version: the next call is without it, and nothing is loaded anew.

use crate::client::{Client, get};
use crate::device::Device;
use crate::egress::{brokered, ok};
use crate::far_end::{Asked, FarEnd};
use crate::messages::handler;
use crate::plant::Plant;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{SlotId, ToExecutor};
use redan_protocol::{Code, Millis};
use redan_runtime::engine::Sizes;
use std::sync::Arc;

fn device() -> (Device, Asked) {
    let address = ok();
    brokered(FarEnd::answering(move |_| Ok(address)))
}

fn narrow(device: &Device, slot: SlotId, grant: &EffectiveGrant) {
    let grant = grant.canonical_json();
    device.say(&ToExecutor::Narrow { slot, grant }, &[]);
}

fn fetching_service() -> EffectiveGrant {
    let mut grant = grants::service("1");
    grant.denied_optional.clear();
    grant.net_http.push(grants::rule("http", "allowed.example", 80));
    grant
}

#[test]
fn a_service_that_loses_an_egress_rule_is_refused_at_its_next_call() {
    let (mut device, asked) = device();
    let grant = fetching_service();
    let (slot, address) = device.serve(&guests::hostile_service(), &grant);
    assert_eq!(get(address, "/fetch").text(), "answered");
    let mut later = grant.clone();
    later.net_http.clear();
    narrow(&device, slot, &later);
    // An order without an answer: the one after it is obeyed after it.
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/fetch").text(), "refused");
    assert_eq!(get(address, "/version").text(), "1", "the rest goes on");
    assert_eq!(
        asked.lock().unwrap().len(),
        1,
        "the broker was asked before, and not again"
    );
}

#[test]
fn a_connection_kept_open_has_no_more_than_its_next_call_is_given() {
    let (mut device, _) = device();
    let grant = fetching_service();
    let (slot, address) = device.serve(&guests::hostile_service(), &grant);
    let mut client = Client::connect(address);
    assert_eq!(client.get("/fetch").text(), "answered");
    let mut later = grant.clone();
    later.net_http[0].methods = vec!["POST".to_owned()];
    narrow(&device, slot, &later);
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(client.get("/fetch").text(), "refused");
}

#[test]
fn a_bucket_that_is_taken_away_is_gone_at_the_next_run() {
    let (mut device, _) = device();
    let grant = grants::job("kv-set");
    let slot = device.load(&guests::hostile_job(), &grant).unwrap();
    assert_eq!(device.run(slot), Ok(()));
    let mut later = grant.clone();
    later.kv.clear();
    narrow(&device, slot, &later);
    assert_eq!(device.run(slot), Err(Code::JobFailed));
}

#[test]
fn nothing_is_added_to_a_running_version() {
    let (mut device, asked) = device();
    let mut narrow_grant = grants::job("fetch");
    narrow_grant
        .env
        .insert("TARGET".to_owned(), "http://allowed.example/".to_owned());
    narrow_grant.net_http[0].methods = vec!["POST".to_owned()];
    let slot = device.load(&guests::hostile_job(), &narrow_grant).unwrap();
    let mut wider = narrow_grant.clone();
    wider.net_http[0].methods = vec!["GET".to_owned(), "POST".to_owned()];
    wider.net_http.push({
        let mut rule = grants::rule("http", "allowed.example", 80);
        rule.id = "added".to_owned();
        rule
    });
    wider.limits.handles = 1_000_000;
    narrow(&device, slot, &wider);
    assert_eq!(device.run(slot), Err(Code::EgressDenied));
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[test]
fn what_was_taken_comes_back_as_far_as_the_version_was_loaded_with_it() {
    let (mut device, _) = device();
    let grant = grants::job("kv-set");
    let slot = device.load(&guests::hostile_job(), &grant).unwrap();
    narrow(&device, slot, &grant.nothing());
    assert_eq!(device.run(slot), Err(Code::JobFailed));
    narrow(&device, slot, &grant);
    assert_eq!(device.run(slot), Ok(()));
}

#[test]
fn what_a_budget_gave_out_stays_given_out() {
    // Otherwise each change of policy would fill the budget again.
    let (mut device, _) = device();
    let mut grant = grants::job("fetch");
    grant
        .env
        .insert("TARGET".to_owned(), "http://allowed.example/".to_owned());
    grant.net_http[0].budget.requests = Some(redan_policy::grant::Rate {
        amount: 1,
        per: Millis::seconds(3600),
    });
    let slot = device.load(&guests::hostile_job(), &grant).unwrap();
    assert_eq!(device.run(slot), Ok(()));
    let mut later = grant.clone();
    later.limits.handles -= 1;
    narrow(&device, slot, &later);
    assert_eq!(device.run(slot), Err(Code::EgressBudget));
}

#[test]
fn limits_and_routes_are_narrowed_too() {
    let (mut device, _) = device();
    let grant = grants::service("1");
    let (slot, address) = device.serve(&guests::hostile_service(), &grant);
    assert_eq!(get(address, "/version").text(), "1");
    let mut later = grant.clone();
    later.trigger_http[0].methods = vec!["POST".to_owned()];
    narrow(&device, slot, &later);
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/version").refusal(), (405, "wrong-method"));
    narrow(&device, slot, &grant.nothing());
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/version").refusal(), (404, "not-found"));
    let mut none_at_once = grant.clone();
    none_at_once.limits.concurrency = 0;
    narrow(&device, slot, &none_at_once);
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/version").refusal(), (503, "concurrency-limit"));
    narrow(&device, slot, &grant);
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/version").text(), "1");
}

#[test]
fn an_order_that_does_not_read_takes_everything() {
    let (mut device, _) = device();
    let grant = grants::job("kv-set");
    let slot = device.load(&guests::hostile_job(), &grant).unwrap();
    let grant = b"{}".to_vec();
    device.say(&ToExecutor::Narrow { slot, grant }, &[]);
    assert_eq!(device.run(slot), Err(Code::JobFailed));
}

fn handling(grant: &EffectiveGrant) -> (Device, Plant, Asked, SlotId) {
    let (mut plant, far_end) = Plant::start();
    let asked = Arc::clone(&far_end.0.asked);
    let mut device = Device::with(&Sizes::default(), far_end);
    let slot = device.load(&guests::hostile_handler(), grant).unwrap();
    device.activate(slot);
    plant.welcome();
    plant.settle("plant/7", b"hello");
    (device, plant, asked, slot)
}

#[test]
fn a_broker_of_messages_that_is_taken_away_has_no_session_any_more() {
    let grant = handler();
    let (mut device, mut plant, asked, slot) = handling(&grant);
    narrow(&device, slot, &grant.nothing());
    plant.ends();
    assert_eq!(device.probe(slot), Ok(()), "the rest goes on");
    // Given back, it is one more connection, and the first since.
    narrow(&device, slot, &grant);
    plant.welcome();
    plant.settle("plant/7", b"again");
    assert_eq!(asked.lock().unwrap().len(), 2);
    assert_eq!(device.log("handler"), ["out plant/7 hello", "out plant/7 again"]);
}

#[test]
fn a_broker_that_is_mapped_elsewhere_is_another_one() {
    let grant = handler();
    let (device, mut plant, _, slot) = handling(&grant);
    let mut later = grant.clone();
    later.messages.brokers[0].host = "10.0.0.5".into();
    narrow(&device, slot, &later);
    plant.ends();
}

#[test]
fn a_subscription_that_is_taken_away_is_left() {
    let mut grant = handler();
    grant.messages.trigger[0].subscribe = vec![vec!["plant/#".into()]];
    let mut second = grant.messages.trigger[0].clone();
    second.id = "offices".into();
    second.subscribe = vec![vec!["office/#".into()]];
    grant.messages.trigger.push(second);
    let (device, mut plant, _, slot) = handling(&grant);
    let mut later = grant.clone();
    later.messages.trigger.remove(1);
    narrow(&device, slot, &later);
    plant.ends();
    assert_eq!(plant.welcome_one_that_leaves(), ["office/#", "plant/#"]);
    plant.settle("plant/7", b"still heard");
}

#[test]
fn what_is_narrowed_before_it_answers_begins_without_what_was_taken() {
    let grant = handler();
    let (mut plant, far_end) = Plant::start();
    let asked = Arc::clone(&far_end.0.asked);
    let mut device = Device::with(&Sizes::default(), far_end);
    let slot = device.load(&guests::hostile_handler(), &grant).unwrap();
    narrow(&device, slot, &grant.nothing());
    device.activate(slot);
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(asked.lock().unwrap().len(), 0);
    narrow(&device, slot, &grant);
    plant.welcome();
    plant.settle("plant/7", b"hello");
}
