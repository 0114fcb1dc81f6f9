//! A DynamoDB table as the store: who is asked, for how long, and what is said meanwhile.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef},
        retry::RetryConfig,
    },
    error::ProvideErrorMetadata,
    operation::{
        batch_get_item::BatchGetItemError, create_table::CreateTableError, delete_item::DeleteItemError,
        describe_table::DescribeTableError, describe_time_to_live::DescribeTimeToLiveError,
        get_item::GetItemError, put_item::PutItemError, query::QueryError, update_item::UpdateItemError,
        update_time_to_live::UpdateTimeToLiveError,
    },
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{interceptors::dyn_dispatch_hint, retries::RequestAttempts},
};
use status_core::StoreError;
use status_dynamo::DynamoStore;

use crate::{
    arguments::Arguments,
    commands,
    output::{Printer, span},
    problem::{Code, Outcome, Problem, causes, innermost},
    store::Store,
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one attempt at a request may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often a request is tried.
const ATTEMPTS: u32 = 6;
/// The shortest and the longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(3)];
/// What the program takes to start and to end: it waits that much less.
const OVERHEAD: Duration = Duration::from_millis(500);

/// A table and the server that has it.
pub(crate) struct Table {
    pub(crate) store: DynamoStore,
    pub(crate) server: Arc<Server>,
}

/// Runs the command on the table, as long as the server answers.
pub(crate) async fn run(arguments: &Arguments, table: &str, printer: &Printer) -> Outcome<Code> {
    let global = &arguments.global;
    let server = Arc::new(Server::new(table, global.timeout, global.json));
    let work = async {
        let store = open(arguments, table, &server).await?;
        commands::run(arguments, &store, printer).await
    };
    // That covers whatever asks the network, such as the search for credentials, and every command however many
    // requests it makes; and it leaves one that makes progress as long as it takes.
    tokio::select! {
        biased;
        done = work => done,
        lost = server.is_lost() => Err(lost),
    }
}

async fn open(arguments: &Arguments, table: &str, server: &Arc<Server>) -> Outcome<Store> {
    let global = &arguments.global;
    let [initial, longest] = PAUSES;
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(retries.with_initial_backoff(initial).with_max_backoff(longest))
        .timeout_config(timeouts.build());
    if let Some(region) = &global.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &global.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    let Some(region) = config.region() else {
        return Err(Problem::usage(format!(
            "no AWS region is known for table {table}; add --region REGION or set AWS_REGION"
        )));
    };
    let endpoint = config.endpoint_url().map(|url| format!(" at {url}")).unwrap_or_default();
    server.found_in(region.as_ref(), &endpoint);
    let hears = Hears(server.clone());
    let config = aws_sdk_dynamodb::config::Builder::from(&config).interceptor(hears).build();
    let store = DynamoStore::new(Client::from_conf(config), table);
    Ok(Store::DynamoDb(Table { store, server: server.clone() }))
}

/// The server, and when it was heard last.
#[derive(Debug)]
pub(crate) struct Server {
    table: String,
    timeout: Duration,
    said_as_json: bool,
    /// Region and address, once they are known.
    found_in: OnceLock<(String, String)>,
    heard: Mutex<Instant>,
    /// The attempt that was told of last.
    told: AtomicU32,
    is_quiet: AtomicBool,
}

impl Server {
    fn new(table: &str, timeout: Duration, said_as_json: bool) -> Self {
        Self {
            table: table.to_owned(),
            timeout,
            said_as_json,
            found_in: OnceLock::new(),
            heard: Mutex::new(Instant::now()),
            told: AtomicU32::new(1),
            is_quiet: AtomicBool::new(false),
        }
    }

    fn found_in(&self, region: &str, endpoint: &str) {
        // It is looked for once.
        let _ = self.found_in.set((region.to_owned(), endpoint.to_owned()));
    }

    /// "DynamoDB table jobs in eu-central-1 at http://…".
    pub(crate) fn name(&self) -> String {
        let place = self.found_in.get().map(|(region, endpoint)| format!(" in {region}{endpoint}"));
        format!("DynamoDB table {}{}", self.table, place.unwrap_or_default())
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    pub(crate) fn be_quiet(&self) {
        self.is_quiet.store(true, Ordering::Relaxed);
    }

    fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.told.store(1, Ordering::Relaxed);
    }

    /// A request is tried for the `attempt`th time: to be told once, however many requests are under way.
    fn tries(&self, attempt: u32) {
        if self.told.fetch_max(attempt, Ordering::Relaxed) < attempt && !self.is_quiet.load(Ordering::Relaxed)
        {
            let text = format!("cannot reach {} ({attempt} of {ATTEMPTS})", self.name());
            Printer::new(self.said_as_json).notice(&text);
        }
    }

    /// Comes back when the server has not been heard for too long.
    async fn is_lost(&self) -> Problem {
        let patience = self.timeout.saturating_sub(OVERHEAD).max(self.timeout / 2);
        loop {
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let silent = heard.elapsed();
            if silent >= patience {
                return self.unreached(&format!("no answer within {}", span(self.timeout)));
            }
            tokio::time::sleep(patience.saturating_sub(silent)).await;
        }
    }

    fn unreached(&self, why: &str) -> Problem {
        let remedy = "check --endpoint-url, --region and the network";
        Problem::unreachable(format!("cannot reach {}: {why}; {remedy}", self.name())).passing()
    }

    /// What an error of a request means.
    pub(crate) fn problem(&self, error: &StoreError, source: &(dyn std::error::Error + 'static)) -> Problem {
        let name = self.name();
        if let StoreError::Throttled { .. } = error {
            let why = "asks to slow down and went on doing so; try again later";
            return Problem::unreachable(format!("{name} {why}")).passing();
        }
        let Some((code, message)) = answer(source) else {
            return self.unanswered(source);
        };
        let said = message.map(|message| format!(": {message}")).unwrap_or_default();
        match code {
            Some("ResourceNotFoundException") => Problem::unreachable(format!(
                "there is no {name}; make it with `jobstatus create-table --table {}`, or name another with \
                 --table, --region or --endpoint-url",
                self.table
            )),
            Some("AccessDeniedException") => Problem::unreachable(format!(
                "access to {name} is denied{said}; use credentials that allow it (AWS_PROFILE)"
            )),
            Some(
                code @ ("UnrecognizedClientException"
                | "ExpiredTokenException"
                | "InvalidSignatureException"
                | "MissingAuthenticationTokenException"
                | "IncompleteSignatureException"),
            ) => Problem::unreachable(format!(
                "{name} does not accept the credentials ({code}){said}; renew them or choose others \
                 (AWS_PROFILE)"
            )),
            Some("InternalServerError" | "ServiceUnavailable") => {
                Problem::unreachable(format!("{name} has a fault of its own{said}; try again later"))
                    .passing()
            }
            Some(code) => Problem::error(format!("{name}: {error} ({code}){said}")),
            None => {
                Problem::unreachable(format!("what answers for {name} is not DynamoDB; check --endpoint-url"))
            }
        }
    }

    /// What it means that a request got no answer.
    fn unanswered(&self, source: &(dyn std::error::Error + 'static)) -> Problem {
        let is_of_credentials = |error: &(dyn std::error::Error + 'static)| error.is::<CredentialsError>();
        if causes(source).any(is_of_credentials) {
            return Problem::unreachable(format!(
                "no AWS credentials were found for {}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY",
                self.name()
            ));
        }
        let cause = causes(source).find_map(|cause| cause.downcast_ref::<std::io::Error>());
        let why = cause.map_or_else(|| innermost(source).to_string(), plain);
        self.unreached(&why)
    }
}

/// The error of the system in its own words, without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// What the server answered, if it did: the code and the message of its error.
fn answer<'e>(source: &'e (dyn std::error::Error + 'static)) -> Option<(Option<&'e str>, Option<&'e str>)> {
    macro_rules! of {
        ($($error:ty),*) => {$(
            if let Some(error) = source.downcast_ref::<$error>() {
                return Some((error.code(), error.message()));
            }
        )*};
    }
    of!(GetItemError, QueryError, BatchGetItemError, UpdateItemError, PutItemError, DeleteItemError);
    of!(DescribeTableError, CreateTableError, DescribeTimeToLiveError, UpdateTimeToLiveError);
    None
}

/// Hears every answer, and counts the attempts.
#[derive(Debug)]
struct Hears(Arc<Server>);

#[dyn_dispatch_hint]
impl Intercept for Hears {
    fn name(&self) -> &'static str {
        "Hears"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.tries(config.load::<RequestAttempts>().map_or(1, RequestAttempts::attempts));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().is_some() {
            self.0.heard();
        }
        Ok(())
    }
}
