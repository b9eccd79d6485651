use super::*;

fn status() -> Status {
    Status {
        site_id: "0190b6a2-0000-7000-8000-000000000001".into(),
        db_version: 17,
        version: "0.1.0".into(),
        cluster_id: "c".into(),
        pid: 1,
        uptime_ms: 5,
        listen: "127.0.0.1:8787".into(),
        advertise: "127.0.0.1:8787".into(),
        http: "127.0.0.1:8080".into(),
        aside: 0,
        members: vec![MemberStatus {
            site_id: "m".into(),
            addr: "127.0.0.1:9".into(),
            state: "alive".into(),
            is_self: false,
            connected: true,
            link: true,
            rtt_ms: Some(0.4),
        }],
        sites: vec![SiteStatus {
            site_id: "s".into(),
            held: vec![(1, 17)],
            missing: vec![(18, 20)],
            lag_ms: 3,
            epochs: Vec::new(),
        }],
        store: StoreStatus::default(),
        counters: BTreeMap::new(),
    }
}

#[test]
fn the_json_keeps_the_shape_that_scripts_rely_on() {
    let json: serde_json::Value = serde_json::to_value(status()).unwrap();
    assert_eq!(json["site_id"], "0190b6a2-0000-7000-8000-000000000001");
    assert_eq!(json["db_version"], 17);
    assert_eq!(json["members"][0]["site_id"], "m");
    assert_eq!(json["members"][0]["addr"], "127.0.0.1:9");
    assert_eq!(json["members"][0]["state"], "alive");
    assert_eq!(json["members"][0]["self"], false);
    assert_eq!(json["sites"][0]["site_id"], "s");
    assert_eq!(json["sites"][0]["held"], serde_json::json!([[1, 17]]));
    assert_eq!(json["sites"][0]["missing"], serde_json::json!([[18, 20]]));
    assert_eq!(json["sites"][0]["lag_ms"], 3);
}

#[test]
fn the_text_says_what_is_missing() {
    let text = human(&status());
    assert!(text.contains("1-17") && text.contains("missing 18-20 for 3 ms"), "{text}");
}

async fn asked_through_its_socket(db: PathBuf) {
    let (sender, mut requests) = mpsc::channel(4);
    let admin = Admin::start(SocketPlace::of(&db), sender).unwrap();
    let mode = std::fs::metadata(SocketPlace::of(&db).path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner may ask");
    tokio::spawn(async move {
        while let Some(StatusRequest(answer)) = requests.recv().await {
            let _ = answer.send(status());
        }
    });
    let path = db.clone();
    let answer = tokio::task::spawn_blocking(move || ask(&path)).await.unwrap().unwrap();
    assert_eq!(answer, status());
    drop(admin);
    let error = ask(&db).unwrap_err();
    assert!(error.to_string().contains("no sidecar runs"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_is_asked_through_its_socket_however_long_its_path() {
    let dir = tempfile::tempdir().unwrap();
    asked_through_its_socket(dir.path().join("app.db")).await;
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    asked_through_its_socket(deep.join("app.db")).await;
    asked_through_its_socket(dir.path().join("n".repeat(200))).await;
}
