//! Servers that cannot be reached, do not answer, or are lost on the way.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, task::JoinSet};

use crate::operator::{Operator, Ran, program};

/// Texts of the SDK and of its parts.
const DEBUG: [&str; 5] = ["DispatchFailure", "ConnectorError", "TimeoutError", "Some(", " { "];

/// A server that accepts every connection and never answers; its address.
fn silent_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    endpoint
}

async fn run(endpoint: &str, arguments: &[&str]) -> (Ran, Duration) {
    let mut command = program();
    command.args(arguments).args(["--table", "jobs", "--endpoint-url", endpoint]);
    let begun = Instant::now();
    let ran = Ran::of(command).await;
    (ran, begun.elapsed())
}

#[tokio::test]
async fn no_command_waits_longer_than_15_seconds_for_a_server_that_does_not_answer() {
    let endpoint = silent_server();
    let id = "0".repeat(36);
    let mut running = JoinSet::new();
    for arguments in [
        vec!["create-table"],
        vec!["list"],
        vec!["list", "--owner", "alice"],
        vec!["show", &id],
        vec!["watch", &id],
        vec!["cancel", &id],
        vec!["history", &id],
        vec!["errors", &id],
        vec!["missing", &id],
        vec!["batches", &id, "--state", "failed"],
        vec!["sweep"],
        vec!["list", "--json"],
    ] {
        let (endpoint, arguments) = (endpoint.clone(), arguments.into_iter().map(str::to_owned));
        let arguments: Vec<String> = arguments.collect();
        running.spawn(async move {
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            let (ran, took) = run(&endpoint, &words).await;
            (arguments, ran, took)
        });
    }
    let mut ran_all = 0;
    while let Some(ran) = running.join_next().await {
        let (arguments, ran, took) = ran.expect("no panic");
        assert!(took < Duration::from_secs(15), "{arguments:?} took {took:?}");
        assert_eq!((ran.code, ran.out.as_str()), (6, ""), "{arguments:?}: {}", ran.err);
        let place = format!("cannot reach DynamoDB table jobs in eu-central-1 at {endpoint}");
        assert!(ran.err.contains(&format!("{place} (2 of 6)")), "it is told meanwhile: {}", ran.err);
        let last = ran.err.lines().last().expect("a sentence");
        assert!(last.contains(&format!("{place}: no answer within 15s; check --endpoint-url")), "{last}");
        assert!(DEBUG.iter().all(|text| !last.contains(text)), "{last}");
        ran_all += 1;
    }
    assert_eq!(ran_all, 12);
}

#[tokio::test]
async fn a_shorter_time_out_is_kept() {
    let (ran, took) = run(&silent_server(), &["list", "--timeout", "2s"]).await;
    assert!(ran.code == 6 && ran.err.contains("no answer within 2s"), "{ran:?}");
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
    let (ran, _) = run(&silent_server(), &["list", "--timeout", "soon"]).await;
    assert!(ran.code == 2 && ran.err.contains("write 15s or 2m"), "{ran:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_six_times() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (ran, took) = run(&endpoint, &["list"]).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    let place = format!("DynamoDB table jobs in eu-central-1 at {endpoint}");
    let tried = (2..=6).map(|attempt| format!("cannot reach {place} ({attempt} of 6)\n"));
    let remedy = "check --endpoint-url, --region and the network";
    let last = format!("jobstatus: cannot reach {place}: connection refused; {remedy}\n");
    assert_eq!((ran.code, ran.err), (6, tried.chain([last]).collect::<String>()));
    let (ran, _) = run(&endpoint, &["list", "--json"]).await;
    let objects: Vec<serde_json::Value> =
        ran.err.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(objects[0]["notice"].as_str().expect("text").ends_with("(2 of 6)"), "{objects:?}");
    assert_eq!(objects[5]["error"]["code"], "unreachable");
}

/// What a way does while it is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Accepts, and does not answer.
    Silent,
    /// Hangs up.
    HungUp,
}

/// A way to a server that can be cut.
struct Way {
    endpoint: String,
    is_cut: Arc<AtomicBool>,
}

impl Way {
    async fn to(server: &str, how: Cut) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let is_cut = Arc::new(AtomicBool::new(false));
        let (server, cut) = (server.trim_start_matches("http://").to_owned(), is_cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), cut.clone(), how));
            }
        });
        Self { endpoint, is_cut }
    }
}

async fn pass(mut client: TcpStream, server: String, is_cut: Arc<AtomicBool>, how: Cut) {
    let cut = async {
        while !is_cut.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let passing = async {
        let mut server = TcpStream::connect(server).await.expect("a server");
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    };
    tokio::select! {
        biased;
        () = cut => {}
        () = passing => return,
    }
    if how == Cut::Silent {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_survives_a_server_that_is_silent_for_a_while_and_says_so() {
    survives(Cut::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_survives_a_server_that_hangs_up_for_a_while_and_says_so() {
    survives(Cut::HungUp).await;
}

async fn survives(how: Cut) {
    let operator = Operator::on_dynamodb().await;
    let id = operator.job("leads.csv", 3).await;
    let way = Way::to(&operator.flags[3], how).await;
    let mut command = program();
    command.args(["watch", &id.to_string(), "--table", "jobs", "--endpoint-url", &way.endpoint]);
    let working = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        operator.complete(id, [0]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        way.is_cut.store(true, Ordering::Relaxed);
        operator.complete(id, [1]).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        way.is_cut.store(false, Ordering::Relaxed);
        // A read that began before may be waited for.
        tokio::time::sleep(Duration::from_secs(7)).await;
        operator.complete(id, [2]).await;
    };
    let (ran, ()) = futures::join!(Ran::of(command), working);
    assert_eq!(ran.err, "connection lost, retrying for 15s\nconnected again\n");
    let seen: Vec<_> = ran.out.lines().map(|line| line.split('\t').nth(1).expect("columns")).collect();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        seen,
        [
            "Leads Processing, 0/3 batches, 0/30 leads",
            "Leads Processing, 1/3 batches, 10/30 leads",
            "Leads Processing, 2/3 batches, 20/30 leads",
            "Completed, 3/3 batches, 30/30 leads",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_gives_up_when_its_time_is_over() {
    let operator = Operator::on_dynamodb().await;
    let id = operator.job("leads.csv", 3).await.to_string();
    let way = Way::to(&operator.flags[3], Cut::Silent).await;
    let mut command = program();
    command.args(["watch", &id, "--timeout", "6s", "--table", "jobs", "--endpoint-url", &way.endpoint]);
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        way.is_cut.store(true, Ordering::Relaxed);
        Instant::now()
    };
    let (ran, cut) = futures::join!(Ran::of(command), cutting);
    assert!(cut.elapsed() < Duration::from_secs(7), "{:?}", cut.elapsed());
    assert_eq!(ran.code, 6, "{ran:?}");
    let said: Vec<_> = ran.err.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0], "connection lost, retrying for 6s");
    assert!(said[1].contains("no answer within 6s"), "{said:?}");
}
