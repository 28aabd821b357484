//! Devices that register themselves: exact answers, the window, and the rotation of tokens.

use http::Method;
use serde_json::{Value, json};
use tidegate_runtime::real::RealNet;

use crate::rig::{Plan, Raw, Site, run};

async fn register(site: &Site, factory: &str) -> (u16, Value) {
    site.post("/api/v1/devices/register", &json!({"factory": factory, "robot_type": "arm"})).await
}

async fn links(site: &Site, path: &str, token: &Value) -> bool {
    let bearer = format!("Bearer {}", token.as_str().expect("a token"));
    Raw::dial(&RealNet, "127.0.0.1", site.api, path, &[("Authorization", bearer.as_str())]).await.is_ok()
}

#[test]
fn a_device_that_registers_is_told_its_id_its_token_and_where_to_dial() {
    run(async {
        let plan = Plan::new().set("auth.devices", "tokens").set("auth.registration", "open");
        let site = plan.start().await;
        let (status, first) = register(&site, "north").await;
        assert_eq!(status, 201, "{first}");
        assert_eq!(first["device_id"], "AB-F0001-T0001-000001");
        for field in ["factory_id", "robot_type_id", "robot_id"] {
            assert_eq!(first[field], "1", "{field} of {first}");
        }
        let host = format!("127.0.0.1:{}", site.api);
        let allowed = json!({"allowed_host": host, "allowed_path_prefix": "/api/v1/callbacks/"});
        assert_eq!(first["callback_allowlist"], allowed);
        let recorder = format!("ws://{host}/recorder/AB-F0001-T0001-000001");
        assert_eq!(first["recorder_rpc_url"], recorder.as_str());
        assert_eq!(first["endpoints"]["recorder_rpc_url"], recorder.as_str());
        let transfer = first["transfer_ws_url"].as_str().expect("a URL");
        assert!(transfer.starts_with(&format!("ws://{host}/transfer/kws_v1_")), "{transfer}");
        assert!(links(&site, "/recorder/AB-F0001-T0001-000001", &first["ws_client_auth_token"]).await);

        let (status, again) = register(&site, "north").await;
        assert_eq!(status, 201, "{again}");
        assert_eq!(again["device_id"], "AB-F0001-T0001-000002", "registering is not idempotent");
        assert_ne!(again["ws_client_auth_token"], first["ws_client_auth_token"]);
        let (_, other) = register(&site, "south").await;
        assert_eq!(other["device_id"], "AB-F0002-T0001-000001");
        for (body, error) in [
            (json!({"robot_type": "arm"}), "factory is required"),
            (json!({"factory": "north", "robot_type": " "}), "robot_type is required"),
            (json!({"factory": 7, "robot_type": "arm"}), "invalid request body"),
        ] {
            let (status, answer) = site.post("/api/v1/devices/register", &body).await;
            assert_eq!((status, answer["error"].as_str()), (400, Some(error)), "{answer}");
        }
        let listed = site.read("/api/v1/devices").await;
        assert_eq!(listed["total"], 3, "{listed}");
        // The route of the predecessor beside it is still its own.
        assert_eq!(site.get("/api/v1/devices/register/connection").await.0, 200);
    });
}

#[test]
fn a_device_is_told_the_addresses_that_were_said_for_its_programs() {
    run(async {
        let plan = Plan::new()
            .set("auth.registration", "open")
            .set("devices.recorder_url", "ws://plain.example:8091/")
            .set("devices.transfer_url", "wss://edge.example/site");
        let site = plan.start().await;
        let (status, told) = register(&site, "north").await;
        assert_eq!(status, 201, "{told}");
        assert_eq!(told["recorder_rpc_url"], "ws://plain.example:8091/recorder/AB-F0001-T0001-000001");
        let transfer = told["transfer_ws_url"].as_str().expect("a URL");
        assert!(transfer.starts_with("wss://edge.example/site/transfer/kws_v1_"), "{transfer}");
        let (_, rotated) = site.post("/api/v1/robots/1/ws-client-auth-token/rotate", &json!({})).await;
        let transfer = rotated["transfer_ws_url"].as_str().expect("a URL");
        assert!(transfer.starts_with("wss://edge.example/site/transfer/kws_v1_"), "{transfer}");
    });
}

#[test]
fn registration_is_closed_where_tokens_are_asked_for_until_an_operator_opens_it() {
    run(async {
        let site = Plan::new().set("auth.devices", "tokens").start().await;
        let (status, body) = register(&site, "north").await;
        assert_eq!((status, body["code"].as_str()), (403, Some("registration_closed")), "{body}");
        let (status, body) = site.post("/api/v1/registration", &json!({"open_for": "10m"})).await;
        assert_eq!((status, body["open_for_ms"].as_u64()), (200, Some(600_000)), "{body}");
        assert_eq!(register(&site, "north").await.0, 201);
        assert_eq!(site.post("/api/v1/registration", &json!({"open_for": "0s"})).await.0, 200);
        assert_eq!(register(&site, "north").await.0, 403);
        assert_eq!(site.post("/api/v1/registration", &json!({"open_for": "2d"})).await.0, 400);
    });
}

#[test]
fn rotation_puts_new_tokens_in_the_place_of_the_old_ones() {
    run(async {
        let plan = Plan::new().set("auth.devices", "tokens").set("auth.registration", "open");
        let site = plan.start().await;
        let (_, device) = register(&site, "north").await;
        let path = "/recorder/AB-F0001-T0001-000001";
        let old = &device["ws_client_auth_token"];
        let rotate = |id: &str| format!("/api/v1/robots/{id}/ws-client-auth-token/rotate");
        let (status, new) = site.post(&rotate("1"), &json!({})).await;
        assert_eq!(status, 200, "{new}");
        assert_eq!((&new["device_id"], &new["robot_id"]), (&device["device_id"], &device["robot_id"]));
        assert!(!links(&site, path, old).await && links(&site, path, &new["ws_client_auth_token"]).await);

        // With no token left there are new ones to be had all the same.
        let revoke = "/api/v1/devices/AB-F0001-T0001-000001/token";
        assert_eq!(site.send(Method::DELETE, revoke).await.status.as_u16(), 200);
        assert_eq!(site.post(&rotate("1"), &json!({})).await.0, 200);
        for (id, status, error) in [
            ("7", 404, "robot not found"),
            ("0", 400, "invalid robot id"),
            ("x", 400, "invalid robot id"),
            ("4294967297", 404, "robot not found"),
        ] {
            let (found, body) = site.post(&rotate(id), &json!({})).await;
            assert_eq!((found, body["error"].as_str()), (status, Some(error)), "{body}");
        }
        let disable = "/api/v1/devices/AB-F0001-T0001-000001/disable";
        assert_eq!(site.post(disable, &json!({})).await.0, 200);
        let (status, body) = site.post(&rotate("1"), &json!({})).await;
        assert_eq!((status, body["error"].as_str()), (400, Some("robot is not active")), "{body}");
    });
}

#[test]
fn who_registers_without_end_is_slowed_down_before_the_records_are_full() {
    run(async {
        let plan = Plan::new().set("auth.devices", "tokens").set("auth.registration", "open");
        let site = plan.start().await;
        let mut known = 0;
        let refused = loop {
            let body = json!({"factory": "north", "robot_type": "arm"});
            let answer = site.http().send(Method::POST, "/api/v1/devices/register", &[], Some(&body)).await;
            let answer = answer.expect("an answer");
            match answer.status.as_u16() {
                201 => known += 1,
                _ => break answer,
            }
            assert!(known < 1_000, "nobody was slowed down");
        };
        assert!(known >= 100, "{known}: a fleet may come at once");
        assert_eq!(
            (refused.status.as_u16(), refused.json()["code"].as_str()),
            (429, Some("too_many_newcomers"))
        );
        let wait =
            refused.headers.get("retry-after").and_then(|text| text.to_str().ok()?.parse::<u32>().ok());
        assert!(wait.is_some_and(|wait| (1..=6).contains(&wait)), "{wait:?}");
        assert_eq!(site.read("/api/v1/devices").await["total"], known);
    });
}
