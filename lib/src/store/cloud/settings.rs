//! Settings of buckets (server, credentials, timeouts) from the usual environment variables.

use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::{Bucket, Outage};
use crate::store::retry::{self, RetryPolicy};

/// The value of `--endpoint`.
static ENDPOINT: Mutex<Option<String>> = Mutex::new(None);

/// Sets the address of a server that speaks the protocol of S3 (`--endpoint`), which takes
/// precedence over the environment. Call it before the first access to a bucket.
pub fn set_endpoint(address: String) {
    *ENDPOINT.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
}

/// Checks an address for [`set_endpoint`].
///
/// # Errors
/// The reason why the address is invalid.
pub fn check_endpoint(address: &str) -> Result<(), String> {
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    match host.map(|host| host.trim_end_matches('/')) {
        Some(host) if host.contains('/') => {
            Err("it has a path; name the server alone, and the bucket in s3://bucket/..."
                .to_owned())
        }
        Some(host) if !host.is_empty() => Ok(()),
        _ => Err("it is no address of a server; write https://host or http://host:port".to_owned()),
    }
}

/// The address of the S3-compatible server, if one is set.
fn endpoint() -> Option<String> {
    let given = ENDPOINT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    given.or_else(|| ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(variable))
}

/// The value of an environment variable that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether at least one of these environment variables is set.
fn any(names: &[&str]) -> bool {
    names.iter().any(|name| variable(name).is_some())
}

/// The variables that provide credentials for S3. If none is set, requests are anonymous. The same
/// holds for [`GOOGLE`] and [`AZURE`].
const S3: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];
const GOOGLE: [&str; 5] = [
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "SERVICE_ACCOUNT",
    "GOOGLE_APPLICATION_CREDENTIALS",
];
const AZURE: [&str; 8] = [
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// The store of a bucket or host.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if the settings cannot be used.
pub(in crate::store) fn bucket(
    scheme: &str,
    root: &str,
    policy: RetryPolicy,
) -> io::Result<Bucket> {
    install_provider();
    let address = format!("{scheme}://{root}");
    let invalid = |message: String| retry::error(io::ErrorKind::InvalidInput, message);
    let bad = |error: object_store::Error| {
        let cause = super::innermost(&error);
        invalid(format!("{address} cannot be used: {cause}{}", env_hint(scheme)))
    };
    if let Some(endpoint) = endpoint().filter(|_| scheme == "s3") {
        check_endpoint(&endpoint).map_err(|message| {
            invalid(format!("the server {endpoint} cannot be used: {message}"))
        })?;
    }
    let (client, once) = connection(policy);
    let (store, pages, credentials): (Arc<dyn object_store::ObjectStore>, _, _) = match scheme {
        "s3" => {
            let store = Arc::new(s3(root, endpoint(), any(&S3), client, once).map_err(bad)?);
            (Arc::clone(&store) as _, Some(store as _), S3_HINT)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(root)
                .with_client_options(client)
                .with_retry(once)
                .with_skip_signature(!any(&GOOGLE));
            let store = Arc::new(builder.build().map_err(bad)?);
            let hint =
                "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a user who may do this";
            (Arc::clone(&store) as _, Some(store as _), hint)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(root)
                .with_client_options(client)
                .with_retry(once)
                .with_skip_signature(!any(&AZURE));
            let store = Arc::new(builder.build().map_err(bad)?);
            let hint = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY to those of a \
                        user who may do this";
            (Arc::clone(&store) as _, Some(store as _), hint)
        }
        _ => {
            let builder = HttpBuilder::new()
                .with_url(address.as_str())
                .with_client_options(client)
                .with_retry(once);
            let store = Arc::new(builder.build().map_err(bad)?);
            (store as _, None, "the server does not let everybody read it")
        }
    };
    let server = endpoint().filter(|_| scheme == "s3");
    let server = server.map_or_else(|| address.clone(), |at| format!("{address} at {at}"));
    let (outage, missing) = (Outage::default(), Mutex::default());
    Ok(Bucket { address, store, pages, server, credentials, policy, outage, missing })
}

/// Advice to set a variable that is missing in the environment, for messages.
fn env_hint(scheme: &str) -> &'static str {
    match scheme {
        "s3" if variable("AWS_ACCESS_KEY_ID").is_some()
            && variable("AWS_SECRET_ACCESS_KEY").is_none() =>
        {
            "; set AWS_SECRET_ACCESS_KEY, as AWS_ACCESS_KEY_ID is set"
        }
        "az" if variable("AZURE_STORAGE_ACCOUNT_NAME").is_none() => {
            "; set AZURE_STORAGE_ACCOUNT_NAME"
        }
        _ => "",
    }
}

/// Advice for the case that access to S3 is denied.
const S3_HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those of a user who may do \
                       this (a bucket whose objects may be read but not listed also denies objects \
                       that do not exist)";

/// Options of connections: the crate makes one attempt per request, because retries and all
/// timeouts but that of connecting are made by [`super::Bucket`].
fn connection(policy: RetryPolicy) -> (ClientOptions, RetryConfig) {
    let once = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: Duration::ZERO,
    };
    let client = ClientOptions::new()
        .with_allow_http(true)
        .with_http1_only()
        .with_timeout_disabled()
        .with_connect_timeout(policy.silence.min(Duration::from_secs(10)));
    (client, once)
}

/// A bucket of S3, or of the server at `endpoint`; requests are signed if there are credentials.
fn s3(
    bucket: &str,
    endpoint: Option<String>,
    signed: bool,
    client: ClientOptions,
    once: RetryConfig,
) -> object_store::Result<AmazonS3> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(once)
        .with_skip_signature(!signed);
    if !any(&["AWS_REGION", "AWS_DEFAULT_REGION"]) {
        builder = builder.with_region("us-east-1");
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder.build()
}

/// A bucket of the server at `endpoint`, for tests.
#[cfg(test)]
pub(in crate::store) fn s3_at(
    root: &str,
    endpoint: Option<String>,
    signed: bool,
    policy: RetryPolicy,
) -> Bucket {
    install_provider();
    let (client, once) = connection(policy);
    let store = s3(root, endpoint.or_else(self::endpoint), signed, client, once).unwrap();
    let store = Arc::new(store);
    let address = format!("s3://{root}");
    Bucket {
        server: address.clone(),
        address,
        store: Arc::clone(&store) as _,
        pages: Some(store as _),
        credentials: S3_HINT,
        policy,
        outage: Outage::default(),
        missing: Mutex::default(),
    }
}

/// Chooses the implementation of TLS for the HTTP client, unless this was done before.
fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // an error means that the program that uses this library has already chosen a provider
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
