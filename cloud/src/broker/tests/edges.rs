//! What an operator sees of edges, over the real listeners.

use robustmq_common::ids::Incarnation;
use robustmq_common::sync::{Hello, Intent, OpenReason, SessionId, StoreId};
use serde_json::{Value, json};

use super::*;
use crate::broker::kept_log::KeptLog;

/// A broker, as an edge without a token and an operator see it.
struct Site {
    broker: Broker,
    client: reqwest::Client,
}

impl Site {
    async fn open(shutdown: &CancellationToken) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { broker: running(shutdown).await, client }
    }

    /// The status of a hello.
    async fn hello(&self, edge: &str, token: Option<&str>) -> u16 {
        let intent = Intent::Open {
            presented: Incarnation(0),
            reason: OpenReason::NewStore,
            judged: Vec::new(),
        };
        let hello =
            Hello { session: SessionId(1), store: StoreId(2), intent, lanes: Vec::new() }.encode();
        let url = format!("http://{}/v1/edges/{edge}/hello", self.broker.uplink);
        let mut request = self.client.post(url).body(hello);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("an answer").status().as_u16()
    }

    fn url(&self) -> String {
        format!("http://{}/v1/edges", self.broker.admin)
    }

    async fn add(&self, edge: Value) -> (u16, Value) {
        let answer = self.client.post(self.url()).json(&edge).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Each edge listed: its id, registered, connected, and whether it is refused.
    async fn list(&self) -> Vec<(String, bool, bool, bool)> {
        let answer = self.client.get(self.url()).send().await.expect("an answer");
        let listed: Vec<Value> = answer.json().await.expect("JSON");
        let text = |edge: &Value| edge["edge"].as_str().unwrap_or_default().to_owned();
        let is = |value: &Value| value.as_bool().expect("a boolean");
        let shown = listed.iter().map(|edge| {
            let (registered, connected) = (&edge["registered"], &edge["status"]["connected"]);
            (text(edge), is(registered), is(connected), edge["refused"].is_string())
        });
        shown.collect()
    }
}

/// Registering one edge stopped all others that ran without a token: the command was silent, the log said nothing, and the list did not
/// have them.
#[tokio::test]
async fn the_first_registered_edge_shuts_out_the_others_and_everybody_is_told() {
    let (log, _guard) = KeptLog::listen();
    let shutdown = CancellationToken::new();
    let site = Site::open(&shutdown).await;
    assert_eq!(site.hello("old", None).await, 200, "no edge is registered");
    assert_eq!(site.list().await, [("old".to_owned(), false, true, false)]);

    let (status, added) = site.add(json!({"edge": "new"})).await;
    assert_eq!((status, &added["first_token"]), (201, &json!(true)));
    assert_eq!(added["without_token"], json!(["old"]));
    let token = added["token"].as_str().expect("a token").to_owned();
    assert_eq!(site.hello("new", Some(&token)).await, 200);

    for _ in 0..3 {
        assert_eq!(site.hello("old", None).await, 401);
        assert_eq!(site.hello("stranger", Some(&token)).await, 404);
    }
    let warnings =
        ["old", "stranger", "new"].map(|edge| log.warnings(&format!("edge={edge} ")).len());
    assert_eq!(warnings, [1, 1, 0], "one for each refused edge, not for each request");
    let listed = site.list().await;
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert_eq!(listed[0], ("new".to_owned(), true, true, false));
    assert_eq!(listed[1], ("old".to_owned(), false, false, true), "it is not connected any more");
    assert_eq!(listed[2], ("stranger".to_owned(), false, false, true));

    let (status, said) = site.add(json!({"edge": "old", "write": ["pl*ant"]})).await;
    assert_eq!(status, 400, "{said}");
    let (status, added) = site.add(json!({"edge": "old"})).await;
    assert_eq!((status, &added["first_token"]), (201, &json!(false)));
    let token = added["token"].as_str().expect("a token").to_owned();
    assert_eq!(site.hello("old", Some(&token)).await, 200);
    // Whoever shows its id beside it does not make it look shut out.
    assert_eq!(site.hello("old", None).await, 401);
    assert_eq!(site.list().await[1], ("old".to_owned(), true, true, true));
    shutdown.cancel();
    site.broker.stopped().await.expect("the store closes");
}
