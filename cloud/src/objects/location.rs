//! From a URL and the environment to an object store.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use robustmq_common::chain::chain;

use super::bounded::Bounded;
use super::paged::Paged;
use super::url::ObjectStoreUrl;

/// Whether the environment lets the object store at `url` be used.
///
/// # Errors
/// Says which variable is wrong and what to do.
pub fn check_environment(url: &ObjectStoreUrl) -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match url {
        ObjectStoreUrl::File { .. } => Ok(()),
        ObjectStoreUrl::S3 { .. } => check_endpoint(variable).map(drop),
    }
}

/// Whether plain HTTP is to be allowed.
fn check_endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    for pair in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ] {
        if variable(pair.0).is_some() && variable(pair.1).is_none() {
            return Err(format!(
                "{} is set in the environment and {} is not: both are needed",
                pair.0, pair.1
            ));
        }
    }
    let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| Some((name, variable(name)?)));
    let Some((name, endpoint)) = named else { return Ok(false) };
    let url: http::Uri =
        endpoint.parse().map_err(|error| format!("{name} {endpoint:?} is no URL: {error}"))?;
    let (Some(scheme), Some(host)) = (url.scheme_str(), url.host()) else {
        return Err(format!("{name} {endpoint:?} is not http(s)://HOST:PORT"));
    };
    match scheme {
        "https" => Ok(false),
        "http"
            if is_loopback(host)
                || variable("AWS_ALLOW_HTTP").is_some_and(|value| is_yes(&value)) =>
        {
            Ok(true)
        }
        "http" => Err(format!(
            "{name} {endpoint:?} would carry all data unencrypted over a network: use https, or set AWS_ALLOW_HTTP=true if that network can be trusted"
        )),
        _ => Err(format!("{name} {endpoint:?} is not http(s)://HOST:PORT")),
    }
}

fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A path in an object store.
#[derive(Debug, Clone)]
pub struct Location {
    /// The object store.
    pub objects: Arc<dyn ObjectStore>,
    /// The path, without slashes at its ends.
    pub path: String,
}

/// What is at `url`, under `name`, which is of one user of it: others have other names. Credentials, region and endpoint are those that
/// the AWS names in the environment give; without any, those of the machine (instance profile, web identity). A request may take
/// `request` with all its bytes.
///
/// # Errors
/// Says what is wrong. Whether the object store answers is not tried.
pub fn locate(url: &ObjectStoreUrl, name: &str, request: Duration) -> Result<Location, String> {
    match url {
        ObjectStoreUrl::File { dir } => {
            std::fs::create_dir_all(dir)
                .map_err(|error| format!("the directory cannot be made: {error}"))?;
            let files = LocalFileSystem::new_with_prefix(dir);
            // Durable means that a power cut does not take it.
            let files = files.map_err(|error| chain(&error))?.with_fsync(true);
            Ok(Location { objects: Arc::new(files), path: name.to_owned() })
        }
        ObjectStoreUrl::S3 { bucket, prefix } => {
            let bucket = bucket_of(bucket, request)?;
            let parts = [prefix.as_str(), name];
            let path: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Ok(Location { objects: Arc::new(bucket), path: path.join("/") })
        }
    }
}

/// A bucket, as the environment says where it is and who may use it.
fn bucket_of(name: &str, request: Duration) -> Result<AmazonS3, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let plain = check_endpoint(variable)?;
    // An embedding program may have chosen another provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One by one: all options at once would take away what the environment says.
    let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    let bucket = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_allow_http(plain)
        .with_retry(retries())
        .with_http_connector(Bounded)
        .with_config(timeout, format!("{} seconds", request.as_secs()))
        .build();
    bucket.map_err(|error| chain(&error))
}

/// What is at `url`, to be read only: nothing is made there. Its listings end.
///
/// # Errors
/// Says what is wrong. Whether the object store answers is not tried.
pub fn locate_source(url: &ObjectStoreUrl) -> Result<Location, String> {
    match url {
        ObjectStoreUrl::File { dir } => {
            let files = LocalFileSystem::new_with_prefix(dir).map_err(|error| chain(&error))?;
            Ok(Location { objects: Arc::new(files), path: String::new() })
        }
        ObjectStoreUrl::S3 { bucket, prefix } => {
            let bucket = bucket_of(bucket, robustmq_common::limits::object::READ)?;
            Ok(Location { objects: Arc::new(Paged::new(bucket)), path: prefix.clone() })
        }
    }
}

/// Where the machine's own credentials come from on EC2: asked for where the environment has none.
const INSTANCE_METADATA: &str = "169.254.169.254";

/// An error of an object store, on one line. Where it is that nobody gave credentials, it says by which names they are looked for.
#[must_use]
pub fn told(error: &object_store::Error) -> String {
    let text = chain(error);
    if ELSEWHERE.iter().any(|code| text.contains(code)) {
        return format!(
            "the bucket is in another region, or at another endpoint, than AWS_REGION and AWS_ENDPOINT_URL say: {text}"
        );
    }
    match text.contains(INSTANCE_METADATA) {
        true => format!(
            "no credentials: the broker's environment has neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), nor \
             AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, nor AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, and this machine \
             gives none; AWS_SKIP_SIGNATURE=true reads what is public: {text}"
        ),
        false => text,
    }
}

/// S3's codes for a request that came to the wrong region.
const ELSEWHERE: [&str; 3] =
    ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"];

/// Few: who uses it tries again for as long as it takes, and what is wrong is to be seen meanwhile.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    }
}

#[cfg(test)]
mod tests {
    use object_store::Error;

    use super::{check_endpoint, told};

    /// It spoke of 169.254.169.254 alone.
    #[test]
    fn who_has_no_credentials_is_told_which_names_are_looked_for() {
        let error = |text: &str| Error::Generic { store: "S3", source: text.into() };
        let without = "Error performing PUT http://169.254.169.254/latest/api/token";
        let said = told(&error(without));
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ROLE_ARN", without] {
            assert!(said.contains(name), "{said}");
        }
        for code in super::ELSEWHERE {
            let said = told(&error(&format!("<Code>{code}</Code>")));
            assert!(
                said.starts_with("the bucket is in another region") && said.contains("AWS_REGION"),
                "{said}"
            );
        }
        assert_eq!(told(&error("gone")), "Generic S3 error: gone");
    }

    #[test]
    fn plain_http_is_for_loopback_or_for_those_who_say_so() {
        let check = |variables: &[(&str, &str)], expected: Result<bool, &str>| {
            let found = check_endpoint(|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{variables:?}"),
                (Err(found), Err(said)) => assert!(found.contains(said), "{found}"),
                (found, expected) => panic!("{variables:?}: {found:?} and not {expected:?}"),
            }
        };
        check(&[], Ok(false));
        check(&[("AWS_ENDPOINT_URL", "https://minio.example:9000")], Ok(false));
        check(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")], Ok(true));
        check(&[("AWS_ENDPOINT_URL", "http://[::1]:9000")], Ok(true));
        check(&[("AWS_ENDPOINT_URL", "http://localhost:9000")], Ok(true));
        let wide = ("AWS_ENDPOINT_URL", "http://minio.example:9000");
        check(&[wide], Err("AWS_ALLOW_HTTP=true"));
        check(&[wide, ("AWS_ALLOW_HTTP", "true")], Ok(true));
        check(&[wide, ("AWS_ALLOW_HTTP", "false")], Err("AWS_ALLOW_HTTP=true"));
        check(&[("AWS_ENDPOINT_URL_S3", "minio:9000")], Err("AWS_ENDPOINT_URL_S3"));
        check(&[("AWS_ENDPOINT_URL", "nowhere")], Err("HOST:PORT"));
        check(&[("AWS_ACCESS_KEY_ID", "x")], Err("AWS_SECRET_ACCESS_KEY"));
        check(&[("AWS_SECRET_ACCESS_KEY", "x")], Err("AWS_ACCESS_KEY_ID"));
    }
}
