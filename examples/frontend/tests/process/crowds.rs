//! Crowds, in a program that may have 1,024 files: nobody else notices.

use std::net::TcpStream;

use super::{
    Duration, Instant, Read, Running, Write, answer, as_visitor, create, header, upload_as, visitor, wait_for,
};

/// Whatever it would like to have.
fn with_few_files(flags: &[&str]) -> Running {
    Running::bounded("-n 1024", flags)
}

/// Whoever comes beside the crowd finds the server healthy, 99 times of 100 within 50 ms, and has a row imported.
fn serves_others(running: &Running, visitor: &str, beside: &str) {
    // Other tests run on this machine, too: what they cost one round they do not cost all.
    let rounds: Vec<_> = (0..5).map(|_| health_p99(running)).collect();
    assert!(rounds.iter().any(|took| *took < Duration::from_millis(50)), "{beside}: {rounds:?}");
    let begun = Instant::now();
    let job = upload_as(running, visitor, 1);
    wait_for(running, visitor, &job, "\"status\":\"completed\"");
    assert!(begun.elapsed() < Duration::from_secs(5), "{beside}: {:?}", begun.elapsed());
}

fn health_p99(running: &Running) -> Duration {
    let ask = |_| {
        let begun = Instant::now();
        let health = answer(&mut running.request("GET /healthz", ""));
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        begun.elapsed()
    };
    let mut took: Vec<_> = (0..100).map(ask).collect();
    took.sort();
    took[98]
}

/// Asks for a new job, again and again on one connection.
fn ask_for_jobs(running: &Running, cookie: &str, times: usize) -> Vec<String> {
    let body = r#"{"file_name":"a.csv","size":100,"content_type":"text/csv"}"#;
    let head = "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
    let request = format!("{head}\r\nCookie: {cookie}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(&running.address).expect("it listens");
    (0..times)
        .map(|_| {
            stream.write_all(request.as_bytes()).expect("sent");
            answer(&mut stream)
        })
        .collect()
}

fn count(answers: &[String], status: u16) -> usize {
    answers.iter().filter(|answer| answer.starts_with(&format!("HTTP/1.1 {status} "))).count()
}

fn raise_our_own_bound() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("as many as we may");
}

#[test]
fn half_open_connections_shut_nobody_out() {
    raise_our_own_bound();
    let running = with_few_files(&[]);
    let somebody = visitor(&running);
    let half_open: Vec<_> = (0..2_000)
        .map(|number| {
            let mut stream = TcpStream::connect(&running.address).expect("it listens");
            // Some say nothing, some have begun.
            let begun =
                if number % 2 == 0 { stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n") } else { Ok(()) };
            drop(begun);
            stream
        })
        .collect();
    serves_others(&running, &somebody, "half-open connections");
    drop(half_open);
}

/// Their requests begin, and do not end.
#[test]
fn requests_that_never_end_shut_nobody_out() {
    raise_our_own_bound();
    let running = with_few_files(&[]);
    let somebody = visitor(&running);
    let begun: Vec<_> = (0..600)
        .map(|_| {
            let mut stream = TcpStream::connect(&running.address).expect("it listens");
            let head =
                "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90";
            drop(write!(stream, "{head}\r\n\r\n{{"));
            stream
        })
        .collect();
    serves_others(&running, &somebody, "requests that never end");
    drop(begun);
}

#[test]
fn streams_and_jobs_of_one_owner_and_of_strangers_shut_nobody_out() {
    raise_our_own_bound();
    let running = with_few_files(&["--batch-delay", "20ms"]);
    let somebody = visitor(&running);
    let (job, cookie) = create(&running, 100);
    let watch = as_visitor(&cookie, &format!("GET {job}/events"));
    let watching: Vec<_> = (0..2_000)
        .map(|_| {
            let mut stream = running.request(&watch, "");
            let refused = answer(&mut stream).starts_with("HTTP/1.1 429");
            (stream, refused)
        })
        .filter(|(_, refused)| !refused)
        .collect();
    assert_eq!(watching.len(), 64, "of one owner");
    serves_others(&running, &somebody, "streams");
    drop(watching);

    let answers = ask_for_jobs(&running, &cookie, 10_000);
    assert_eq!((count(&answers, 201), count(&answers, 429)), (63, 9_937), "beside the one that is watched");
    serves_others(&running, &somebody, "jobs of one owner");

    let known = visitor(&running);
    let answers = ask_for_jobs(&running, "", 10_000);
    let (made, refused) = (count(&answers, 201), count(&answers, 429));
    assert!(refused > 9_800 && made + refused == 10_000, "strangers from one address: {made} of 10,000");
    let refused = answers.iter().find(|answer| answer.starts_with("HTTP/1.1 429")).expect("some");
    assert!(header(refused, "retry-after:").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{refused}");
    // Nobody gets an identity for nothing any more, and who has one is no stranger.
    let page = answer(&mut running.request("GET /", ""));
    assert!(page.starts_with("HTTP/1.1 200") && !page.contains("set-cookie"), "{page}");
    let answers = ask_for_jobs(&running, &known, 1);
    assert_eq!(count(&answers, 201), 1, "{answers:?}");
}

#[test]
fn who_takes_nothing_of_an_answer_is_let_go() {
    let running = with_few_files(&[]);
    let somebody = visitor(&running);
    let asked = b"GET /job-status.js HTTP/1.1\r\nHost: x\r\n\r\n";
    let all = 5_000 * answer(&mut running.request("GET /job-status.js", "")).len();
    let mut slow = TcpStream::connect(&running.address).expect("it listens");
    slow.set_write_timeout(Some(Duration::from_secs(1))).expect("set");
    let _ = slow.write_all(&asked.repeat(5_000));
    serves_others(&running, &somebody, "a slow reader");
    std::thread::sleep(Duration::from_secs(35));
    let mut got = Vec::new();
    let _ = slow.read_to_end(&mut got);
    assert!(got.len() < all / 2, "{} of {all} bytes", got.len());
}
