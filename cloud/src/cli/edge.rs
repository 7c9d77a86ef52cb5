//! `robustmq-cloud edge`, through the admin listener of the running broker.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::{Client, Response, StatusCode, Url};
use robustmq_common::chain::chain;
use robustmq_common::cli::complain;
use robustmq_common::ids::EdgeId;
use serde_json::Value;

use super::table::print_listing;
use super::{CommandError, print};
use crate::settings::parse_host_port;
use crate::uplink::{AddEdge, AddedEdge, Rights};

/// Edges that a warning names.
const NAMED: usize = 10;
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct Edge {
    #[command(subcommand)]
    command: EdgeCommand,
}

#[derive(Args)]
pub(super) struct Admin {
    /// The admin listener of the broker, HOST:PORT or a URL
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ROBUSTMQ_ADMIN",
        default_value = "127.0.0.1:8090"
    )]
    pub admin: String,
}

#[derive(Subcommand)]
enum EdgeCommand {
    /// List the edges that are registered, connected or were refused lately
    #[command(after_help = "Example:\n  robustmq-cloud edge list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Register an edge and print its token, which is not shown again
    ///
    /// Once any edge is registered, all edges need tokens: also those on the broker's machine, which need none until then.
    #[command(
        after_help = "Examples:\n  robustmq-cloud edge add gateway-17 > gateway-17.token\n  robustmq-cloud edge add gateway-17 --write 'plant-7.*'"
    )]
    Add {
        /// Its id
        id: String,
        /// A topic, or prefix*, that it may write to; may be given several times; everything if left out
        #[arg(long, value_name = "TOPIC")]
        write: Vec<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Remove an edge: its token stops working
    #[command(after_help = "Example:\n  robustmq-cloud edge remove gateway-17")]
    Remove {
        /// Its id
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
}

/// A client of the admin listener.
pub(super) fn admin_client() -> Result<Client, CommandError> {
    // Another part of the process may have chosen one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(ANSWER).no_proxy().build().map_err(failed)
}

pub(super) async fn run(args: Edge) -> Result<(), CommandError> {
    let client = admin_client()?;
    match args.command {
        EdgeCommand::List { json, admin } => list(&client, &admin, json).await,
        EdgeCommand::Add { id, write, admin } => {
            let edge = edge_id(&id)?;
            let rights = if write.is_empty() { Ok(Rights::all()) } else { Rights::new(write) };
            let write =
                rights.map_err(|error| CommandError::Usage(format!("--write {error}")))?.write;
            let request = client.post(url(&admin, "")?).json(&AddEdge { edge, write });
            let added: AddedEdge =
                good(request.send().await).await?.json().await.map_err(failed)?;
            for warning in warnings(&added) {
                complain("robustmq-cloud", &warning);
            }
            print(&format!("{}\n", added.token));
            Ok(())
        }
        EdgeCommand::Remove { id, admin } => {
            let edge = edge_id(&id)?;
            let answer = client.delete(url(&admin, &format!("/{edge}"))?).send().await;
            if let Ok(answer) = &answer
                && answer.status() == StatusCode::NOT_FOUND
            {
                check_listener(answer.status(), answer.url()).await?;
                return Err(CommandError::Failed(format!(
                    "there is no edge {edge}; `robustmq-cloud edge list` shows those that are registered"
                )));
            }
            good(answer).await?;
            print(&format!("removed {edge}\n"));
            Ok(())
        }
    }
}

/// What else a new token changes.
fn warnings(added: &AddedEdge) -> Vec<String> {
    if !added.first_token {
        return Vec::new();
    }
    let mut warnings = vec![
        "warning: this is the first token; from now on every edge has to show its own, also those on the broker's machine"
            .to_owned(),
    ];
    if !added.without_token.is_empty() {
        let named = added.without_token.iter().take(NAMED).map(EdgeId::as_str);
        let mut named = named.collect::<Vec<_>>().join(", ");
        match added.without_token.len().saturating_sub(NAMED) {
            0 => {}
            more => named.push_str(&format!(" and {more} more")),
        }
        warnings.push(format!(
            "warning: connected without a token, and refused from now on: {named}; add each with `robustmq-cloud edge add` and \
             name its token in the edge's [uplink] token_file (what it has queued is sent then)"
        ));
    }
    warnings
}

async fn list(client: &Client, admin: &Admin, json: bool) -> Result<(), CommandError> {
    let mut edges: Vec<Value> = Vec::new();
    loop {
        let mut page_url = url(admin, "")?;
        if let Some(last) = edges.last().and_then(|edge| edge.get("edge")).and_then(Value::as_str) {
            page_url.push_str("?after=");
            page_url.push_str(last);
        }
        let page: Vec<Value> =
            good(client.get(page_url).send().await).await?.json().await.map_err(failed)?;
        if page.is_empty() {
            break;
        }
        edges.extend(page);
    }
    print_listing(json, &edges, &HEADING, row)
}

const HEADING: [&str; 7] =
    ["EDGE", "REGISTERED", "CONNECTED", "SEEN (S AGO)", "INCARNATION", "MAY WRITE", "REFUSED"];

fn row(edge: &Value) -> Vec<String> {
    let status = edge.get("status");
    let of_status = |key| cell(status.and_then(|status| status.get(key)));
    vec![
        cell(edge.get("edge")),
        cell(edge.get("registered")),
        of_status("connected"),
        of_status("seen_seconds_ago"),
        of_status("incarnation"),
        cell(edge.get("write")),
        cell(edge.get("refused")),
    ]
}

/// A value as a person reads it.
fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(", ")
        }
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn url(admin: &Admin, rest: &str) -> Result<String, CommandError> {
    Ok(format!("{}/v1/edges{rest}", base(admin)?))
}

/// The admin listener's URL.
pub(super) fn base(admin: &Admin) -> Result<String, CommandError> {
    let text = admin.admin.trim_end_matches('/');
    match text.split_once("://") {
        Some(("http" | "https", host)) if !host.is_empty() => Ok(text.to_owned()),
        Some(_) => {
            let wrong =
                format!("--admin {text:?} is not HOST:PORT, http://HOST:PORT or https://...");
            Err(CommandError::Usage(wrong))
        }
        None => {
            parse_host_port(text)
                .map_err(|error| CommandError::Usage(format!("--admin {error}")))?;
            Ok(format!("http://{text}"))
        }
    }
}

fn edge_id(id: &str) -> Result<EdgeId, CommandError> {
    EdgeId::new(id).map_err(|error| CommandError::Usage(error.to_string()))
}

/// Why there is no answer, or none that can be read, in the words of the commands that talk to the Kafka listener.
pub(super) fn failed(error: reqwest::Error) -> CommandError {
    let at = error.url().map_or_else(|| "--admin".to_owned(), place);
    CommandError::Failed(if error.is_timeout() {
        format!("the broker's admin listener at {at} gave no answer within {ANSWER:?}")
    } else if error.is_connect() {
        format!("no broker's admin listener at {at}: {}", root(&error))
    } else if error.is_request() {
        format!(
            "no broker's admin listener at {at}: what is there does not answer in HTTP; is it the one for Kafka clients, of --bootstrap?"
        )
    } else if error.is_decode() {
        format!("{}: {}", no_listener(&at), chain(&error.without_url()))
    } else {
        chain(&error)
    })
}

/// What is said where something else answers in HTTP.
fn no_listener(at: &str) -> String {
    format!("no broker's admin listener at {at}: something else answers there in HTTP")
}

/// The host and the port of a URL.
fn place(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
    port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What caused all the rest.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

pub(super) async fn good(
    answer: Result<Response, reqwest::Error>,
) -> Result<Response, CommandError> {
    let answer = answer.map_err(failed)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().clone();
    let reason = answer.text().await.unwrap_or_default();
    check_listener(status, &url).await?;
    Err(CommandError::Failed(match reason.trim() {
        "" => format!("the broker answers {status}"),
        reason => format!("the broker answers {status}: {reason}"),
    }))
}

/// Whatever listens for HTTP says that something is not there; only an admin listener knows of its store.
async fn check_listener(status: StatusCode, asked: &Url) -> Result<(), CommandError> {
    let Some((before, _)) = asked.path().split_once("/v1/") else { return Ok(()) };
    if !matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        return Ok(());
    }
    let mut store = asked.clone();
    store.set_path(&format!("{before}/v1/store"));
    store.set_query(None);
    let answer = admin_client()?.get(store).send().await.map_err(failed)?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(CommandError::Failed(no_listener(&place(asked)))),
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::EdgeId;
    use serde_json::json;

    use super::{AddedEdge, Admin, row, url, warnings};

    /// Adding one edge stopped every other that had no token, and nothing said so.
    #[test]
    fn the_first_token_comes_with_a_warning_that_names_who_is_shut_out() {
        let edge = |name: &str| EdgeId::new(name).expect("a legal name");
        let added = |first_token, without: &[&str]| AddedEdge {
            edge: edge("new"),
            token: "rmq_secret".to_owned(),
            first_token,
            without_token: without.iter().map(|name| edge(name)).collect(),
        };
        assert!(warnings(&added(false, &[])).is_empty());
        assert_eq!(warnings(&added(true, &[])).len(), 1);
        let said = warnings(&added(true, &["plant-1", "plant-2"])).join("\n");
        assert!(said.contains("first token") && said.contains("plant-1, plant-2;"), "{said}");
        let many: Vec<String> = (0..25).map(|number| format!("e{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let said = warnings(&added(true, &many)).join("\n");
        assert!(said.contains("e9 and 15 more;") && !said.contains("secret"), "{said}");
    }

    /// `--admin 127.0.0.1:8090` failed with `builder error: relative URL without a base`.
    #[test]
    fn the_admin_listener_is_named_as_in_the_configuration_or_as_a_url() {
        let check = |admin: &str, expected: Option<&str>| {
            let admin = Admin { admin: admin.to_owned() };
            let url = url(&admin, "/e");
            let expected = expected.map(|base| format!("{base}/v1/edges/e"));
            assert_eq!(url.ok(), expected, "{}", admin.admin);
        };
        check("127.0.0.1:8090", Some("http://127.0.0.1:8090"));
        check("broker.example:8090", Some("http://broker.example:8090"));
        check("[::1]:8090", Some("http://[::1]:8090"));
        check("https://broker.example/", Some("https://broker.example"));
        check("http://127.0.0.1:8090", Some("http://127.0.0.1:8090"));
        for wrong in ["", "nonsense", "host:0", "ftp://host", "http://"] {
            check(wrong, None);
        }
    }

    /// The table had `["*"]` in it.
    #[test]
    fn a_row_is_for_people() {
        let status = json!({"connected": true, "seen_seconds_ago": null, "incarnation": "3"});
        let edge = json!({
            "edge": "plant-1", "registered": true, "write": ["a.*", "b"], "refused": null, "status": status
        });
        assert_eq!(row(&edge), ["plant-1", "yes", "yes", "", "3", "a.*, b", ""]);
    }
}
