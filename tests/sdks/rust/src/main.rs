//! The program of this test for the AWS SDK for Rust and for ScyllaDB's client library; ../README.md says what each
//! program does.
//!
//!     alternator-dns-sdk-program aws|scylla default|recommended ENDPOINT_URL...

use std::collections::HashMap;
use std::error::Error;
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use alternator_driver::{AlternatorClient, AlternatorConfig};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};

/// For each endpoint.
const WORKERS: usize = 2;
/// Between two operations of a worker.
const PAUSE: Duration = Duration::from_millis(100);

static FAST: AtomicBool = AtomicBool::new(false);

type Item = HashMap<String, AttributeValue>;
type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The two clients have the same operations, and no trait in common.
macro_rules! run {
    ($clients:expr) => {
        for (zone, client) in $clients.into_iter().enumerate() {
            if let Err(error) = create!(client) {
                // A repeated attempt may find the table that an earlier one, whose reply came too late, has created.
                if !error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) {
                    return Err(error.into());
                }
            }
            for worker in 0..WORKERS {
                let client = client.clone();
                tokio::spawn(async move {
                    for number in 1.. {
                        round!(client, zone, worker, number);
                    }
                });
            }
        }
    };
}

macro_rules! create {
    ($client:expr) => {
        $client
            .create_table()
            .table_name(table())
            .key_schema(KeySchemaElement::builder().attribute_name("customer").key_type(KeyType::Hash).build()?)
            .key_schema(KeySchemaElement::builder().attribute_name("number").key_type(KeyType::Range).build()?)
            .attribute_definitions(attribute("customer", ScalarAttributeType::S)?)
            .attribute_definitions(attribute("number", ScalarAttributeType::N)?)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
    };
}

macro_rules! round {
    ($client:expr, $zone:expr, $worker:expr, $number:expr) => {{
        let (client, key) = (&$client, key($worker, $number));
        let get = || client.get_item().table_name(table()).set_key(Some(key.clone())).send();
        if FAST.load(Ordering::Relaxed) {
            attempt($zone, "get", async { Ok(get().await.map(drop)?) }).await;
            continue;
        }
        let mut item = key.clone();
        item.insert("placed_at".to_owned(), AttributeValue::S($zone.to_string()));
        let put = client.put_item().table_name(table()).set_item(Some(item.clone())).send();
        if !attempt($zone, "put", async { Ok(put.await.map(drop)?) }).await {
            continue;
        }
        attempt($zone, "get", async { expect(get().await?.item.as_slice(), &item) }).await;
        let query = client
            .query()
            .table_name(table())
            .key_condition_expression("customer = :customer AND #n = :number")
            .expression_attribute_names("#n", "number")
            .expression_attribute_values(":customer", key["customer"].clone())
            .expression_attribute_values(":number", key["number"].clone())
            .send();
        attempt($zone, "query", async { expect(query.await?.items(), &item) }).await;
        let scan = client.scan().table_name(table()).send();
        attempt($zone, "scan", async { expect(&only(scan.await?.items(), &item), &item) }).await;
        let delete = client.delete_item().table_name(table()).set_key(Some(key.clone())).send();
        attempt($zone, "delete", async { Ok(delete.await.map(drop)?) }).await;
    }};
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, settings, urls @ ..] = arguments.as_slice() else {
        return Err("aws|scylla default|recommended ENDPOINT_URL...".into());
    };
    let shared = load(settings).await;
    match library.as_str() {
        "aws" => run!(urls.iter().map(|url| aws_client(&shared, url))),
        _ => run!(urls.iter().map(|url| scylla_client(&shared, settings, url))),
    }
    tokio::task::spawn_blocking(|| {
        for _ in std::io::stdin().lock().lines() {
            FAST.store(true, Ordering::Relaxed);
        }
    })
    .await?;
    std::process::exit(0)
}

async fn load(settings: &str) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest());
    match settings {
        "default" => loader.load().await,
        _ => loader.timeout_config(timeouts()).retry_config(retries()).load().await,
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(2))
        .build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(10)
}

fn aws_client(shared: &SdkConfig, url: &str) -> Client {
    Client::from_conf(aws_sdk_dynamodb::config::Builder::from(shared).endpoint_url(url).build())
}

fn scylla_client(shared: &SdkConfig, settings: &str, url: &str) -> AlternatorClient {
    let (host, port) = host_and_port(url);
    let mut builder = AlternatorConfig::builder().scheme("http").port(port).seed_hosts([host]);
    if let Some(credentials) = shared.credentials_provider() {
        builder = builder.credentials_provider(credentials);
    }
    if settings == "recommended" {
        builder = builder.timeout_config(timeouts()).retry_config(retries());
    }
    AlternatorClient::from_conf(builder.build())
}

/// Of `http://HOST:PORT`.
fn host_and_port(url: &str) -> (&str, u16) {
    let (host, port) = url.trim_start_matches("http://").split_once(':').expect("a URL with a port");
    (host, port.parse().expect("a port is a number"))
}

fn table() -> String {
    format!("orders-{}", std::env::var("AWS_ACCESS_KEY_ID").unwrap_or_default())
}

fn attribute(name: &str, kind: ScalarAttributeType) -> Result<AttributeDefinition, Box<dyn Error>> {
    Ok(AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()?)
}

fn key(worker: usize, number: u32) -> Item {
    HashMap::from([
        ("customer".to_owned(), AttributeValue::S(format!("worker-{worker}"))),
        ("number".to_owned(), AttributeValue::N(number.to_string())),
    ])
}

fn only(items: &[Item], wanted: &Item) -> Vec<Item> {
    items.iter().filter(|item| *item == wanted).cloned().collect()
}

fn expect(got: &[Item], wanted: &Item) -> Outcome {
    match got {
        [item] if item == wanted => Ok(()),
        _ => Err(format!("wrong: expected {wanted:?}, got {got:?}").into()),
    }
}

/// Does one operation and prints a line about it; whether it succeeded.
async fn attempt(zone: usize, operation: &str, call: impl Future<Output = Outcome>) -> bool {
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let from = Instant::now();
    let error = call.await.err().map(|error| DisplayErrorContext(&*error).to_string());
    let line = serde_json::json!({
        "zone": zone, "operation": operation, "start": start.as_secs_f64(),
        "seconds": from.elapsed().as_secs_f64(), "error": error,
    });
    println!("{line}");
    if !FAST.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
    }
    error.is_none()
}
