//! Rollouts over the network: what is refused up front. What they do with reports is tested in `control/core` and end to end.

use crate::site::Site;
use redan_protocol::Code;
use serde_json::json;

#[tokio::test]
async fn a_set_that_is_not_published_is_not_rolled_out() {
    let site = Site::open().await;
    site.device("press-1").await;
    let request = json!({
        "set": "plant-1",
        "waves": [{"name": "all", "permille": 1000}],
        "failure_threshold": 1,
        "soak_seconds": 1,
        "deadline_seconds": 60,
    });
    let mut operator = site.operator().await;
    let answer = operator.post("/v1/rollouts", &request).await;
    assert_eq!(answer.refusal(), (400, Code::PreflightRefused));
    assert_eq!(operator.get("/v1/rollouts").await.json(), json!([]));
    assert_eq!(
        operator.get("/v1/rollouts/1").await.refusal(),
        (404, Code::NotFound)
    );
    for verb in ["pause", "resume", "abort", "explode"] {
        let answer = operator.post(&format!("/v1/rollouts/1/{verb}"), &json!({})).await;
        assert_eq!(answer.refusal(), (404, Code::NotFound), "{verb}");
    }
}

#[tokio::test]
async fn a_request_with_an_unknown_member_is_refused_and_the_member_named() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    let answer = operator
        .post("/v1/rollouts", &json!({"set": "plant-1", "speed": 11}))
        .await;
    assert_eq!(answer.refusal(), (400, Code::BadRequest));
    assert!(String::from_utf8_lossy(&answer.body).contains("speed"));
}
