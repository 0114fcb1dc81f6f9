//! The program itself: how it starts, and how it ends.

mod crowds;
mod hostile_files;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(flags: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_frontend")).args(flags))
    }

    /// Started as a shell does that bounds what it may have: `-n 1024`, say.
    fn bounded(bound: &str, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {bound}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_frontend")]);
        Self::of(shell.args(flags))
    }

    fn of(command: &mut Command) -> Self {
        command.args(["--listen", "127.0.0.1:0"]).env("RUST_LOG", "warn").stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("Listening on http://").expect("an address").to_owned();
        Self { child, address }
    }

    fn request(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let head = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json");
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        stream
    }

    fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a header in what has come so far.
fn header(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
    line.split(';').next().expect("a value").trim().to_owned()
}

fn answer(stream: &mut TcpStream) -> String {
    let mut text = vec![0; 65_536];
    let read = stream.read(&mut text).expect("an answer");
    String::from_utf8_lossy(&text[..read]).into_owned()
}

#[test]
fn sigterm_during_processing_ends_streams_and_exits_cleanly_in_time() {
    let mut running = Running::start(&["--batch-delay", "1s"]);
    let csv = format!("name\n{}", "Ada\n".repeat(900));
    let (job, cookie) = create(&running, csv.len());
    let upload = format!("PUT {}", job.replace("/jobs/", "/uploads/"));
    let with_cookie = |head: &str| head.to_owned() + " HTTP/1.1\r\nCookie: " + &cookie + "\r\nX-Rest:";
    assert!(answer(&mut running.request(&with_cookie(&upload), &csv)).starts_with("HTTP/1.1 200"));
    let mut events = running.request(&with_cookie(&format!("GET {job}/events")), "");
    assert!(answer(&mut events).starts_with("HTTP/1.1 200"));
    std::thread::sleep(Duration::from_millis(1_500));
    let begun = Instant::now();
    running.signal("-TERM");
    let mut rest = String::new();
    events.read_to_string(&mut rest).expect("the stream ends");
    let status = running.child.wait().expect("it exits");
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(rest.ends_with("0\r\n\r\n"), "the stream was ended, not cut: {rest:?}");
    assert!(TcpStream::connect(&running.address).is_err(), "nothing is accepted any more");
}

/// The JSON number after `"name":` that comes after `"within":`.
fn number(text: &str, within: &str, name: &str) -> u64 {
    let text = &text[text.find(&format!("\"{within}\":")).unwrap_or_else(|| panic!("{within} in {text}"))..];
    let text = text.split_once(&format!("\"{name}\":")).expect("the name").1;
    text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}

/// How often the program is killed, and in the middle of how many batches; 10 and 2,000 if not set.
const KILLS: &str = "FRONTEND_KILLS";
const BATCHES: &str = "FRONTEND_BATCHES";

fn set(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().expect("a number"))
}

/// SQLite's own check finds nothing in any of the folder's files.
fn check(folder: &Path) {
    for file in ["status.db", "leads.db"] {
        let connection = rusqlite::Connection::open(folder.join(file)).expect("it opens");
        let found: String =
            connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("checked");
        assert_eq!(found, "ok", "{file}");
    }
}

#[test]
fn killed_ten_times_a_job_in_a_folder_is_finished_and_each_batch_counted_once() {
    let (kills, batches) = (set(KILLS, 10), set(BATCHES, 2_000));
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--data", folder.path().to_str().expect("UTF-8"), "--batch-delay", "2ms", "--workers", "8"];
    let mut running = Running::start(&flags);
    let csv: String = (0..10 * batches).map(|n| format!("Ann,Bee {n},ann{n}@example.com\n")).collect();
    let csv = format!("First Name,Last Name,Email\n{csv}");
    let (job, cookie) = create(&running, csv.len());
    let with_cookie = |head: &str| as_visitor(&cookie, head);
    let upload = with_cookie(&format!("PUT {}", job.replace("/jobs/", "/uploads/")));
    assert!(answer(&mut running.request(&upload, &csv)).starts_with("HTTP/1.1 200"));
    let look = |running: &Running, path: &str| {
        answer(&mut running.request(&with_cookie(&format!("GET {path}")), ""))
    };
    let mut completed = 0;
    for round in 0..kills {
        // Spread over the whole job, however fast the machine is.
        let begun = Instant::now();
        while number(&look(&running, &job), "batches", "completed") <= round * batches / (kills + 1) {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing moves any more");
            std::thread::sleep(Duration::from_millis(2));
        }
        running.signal("-KILL");
        let _ = running.child.wait();
        check(folder.path());
        running = Running::start(&flags);
        let now = number(&look(&running, &job), "batches", "completed");
        assert!(now >= completed, "what was counted stays counted");
        completed = now;
    }
    assert!((1..batches).contains(&completed), "it was killed in the middle: {completed}");
    let begun = Instant::now();
    let last = loop {
        let snapshot = look(&running, &job);
        if !snapshot.contains("\"status\":\"processing\"") {
            break snapshot;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "{snapshot}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(last.contains("\"status\":\"completed\""), "{last}");
    assert_eq!(
        (number(&last, "batches", "completed"), number(&last, "items", "processed")),
        (batches, 10 * batches)
    );
    let leads = look(&running, "/leads?per_page=1");
    assert!(leads.contains(&format!("\"total\":{},", 10 * batches)), "every lead is there once: {leads}");
    drop(running);
    check(folder.path());
}

/// Somebody new makes a job for a file of that size; where it is, and the cookie.
fn create(running: &Running, size: usize) -> (String, String) {
    let cookie = visitor(running);
    (create_as(running, &cookie, size), cookie)
}

/// The cookie of somebody new.
fn visitor(running: &Running) -> String {
    header(&answer(&mut running.request("GET /", "")), "set-cookie:")
}

fn create_as(running: &Running, cookie: &str, size: usize) -> String {
    let body = format!(r#"{{"file_name":"a.csv","size":{size},"content_type":"text/csv"}}"#);
    let created = answer(&mut running.request(&as_visitor(cookie, "POST /jobs"), &body));
    header(&created, "location:")
}

/// Uploads `rows` leads in a new job; where it is, and the cookie.
fn upload(running: &Running, rows: u64) -> (String, String) {
    let cookie = visitor(running);
    (upload_as(running, &cookie, rows), cookie)
}

fn upload_as(running: &Running, cookie: &str, rows: u64) -> String {
    let csv: String = (0..rows).map(|n| format!("Ann,Bee {n},ann{n}@example.com\n")).collect();
    let csv = format!("First Name,Last Name,Email\n{csv}");
    let job = create_as(running, cookie, csv.len());
    let upload = as_visitor(cookie, &format!("PUT {}", job.replace("/jobs/", "/uploads/")));
    let taken = answer(&mut running.request(&upload, &csv));
    assert!(taken.starts_with("HTTP/1.1 200"), "{taken}");
    job
}

fn as_visitor(cookie: &str, head: &str) -> String {
    format!("{head} HTTP/1.1\r\nCookie: {cookie}\r\nX-Rest:")
}

fn get(running: &Running, cookie: &str, path: &str) -> String {
    answer(&mut running.request(&as_visitor(cookie, &format!("GET {path}")), ""))
}

/// Waits for what `path` shows to contain `wanted`.
fn wait_for(running: &Running, cookie: &str, path: &str, wanted: &str) -> String {
    let begun = Instant::now();
    loop {
        let shown = get(running, cookie, path);
        if shown.contains(wanted) {
            return shown;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{wanted} is not in {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Holds the file against all other writers for a while.
fn hold(file: &Path, time: Duration) {
    let connection = rusqlite::Connection::open(file).expect("it opens");
    connection.busy_timeout(Duration::from_secs(30)).expect("set");
    connection.execute_batch("BEGIN IMMEDIATE").expect("held");
    std::thread::sleep(time);
    connection.execute_batch("ROLLBACK").expect("let go");
}

/// Three tries, of five seconds each, are over long before.
const HELD: Duration = Duration::from_secs(24);

#[test]
fn leads_that_cannot_be_written_for_a_while_are_written_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let running = Running::start(&["--data", data, "--batch-delay", "100ms", "--workers", "1"]);
    let (job, cookie) = upload(&running, 400);
    wait_for(&running, &cookie, &job, "\"status\":\"processing\"");
    hold(&folder.path().join("leads.db"), HELD);
    let shown = wait_for(&running, &cookie, &job, "\"status\":\"completed\"");
    assert_eq!((number(&shown, "batches", "completed"), number(&shown, "batches", "failed")), (40, 0));
    let leads = get(&running, &cookie, "/leads?per_page=1");
    assert!(leads.contains("\"total\":400,"), "{leads}");
}

#[test]
fn a_file_that_comes_while_the_status_cannot_be_written_is_split_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(&["--data", folder.path().to_str().expect("UTF-8")]);
    let (job, cookie) = upload(&running, 20_000);
    hold(&folder.path().join("status.db"), HELD);
    let shown = wait_for(&running, &cookie, &job, "\"status\":\"completed\"");
    assert_eq!(number(&shown, "items", "processed"), 20_000);
}

#[test]
fn a_job_whose_file_is_gone_after_a_crash_fails_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--data", folder.path().to_str().expect("UTF-8"), "--batch-delay", "2s"];
    let mut running = Running::start(&flags);
    let (job, cookie) = upload(&running, 1_000);
    wait_for(&running, &cookie, &job, "\"status\":\"processing\"");
    running.signal("-KILL");
    let _ = running.child.wait();
    for file in std::fs::read_dir(folder.path().join("uploads")).expect("a folder") {
        std::fs::remove_file(file.expect("a file").path()).expect("removed");
    }
    let running = Running::start(&flags);
    let shown = wait_for(&running, &cookie, &job, "\"status\":\"failed\"");
    assert!(shown.contains("The uploaded file is not there any more"), "{shown}");
}

#[test]
fn a_folder_is_its_owners_alone_and_one_process_has_it() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("data");
    let flags = ["--data", folder.to_str().expect("UTF-8")];
    let running = Running::start(&flags);
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!(mode(&folder), 0o700);
    for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let expected = if entry.path().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&entry.path()), expected, "{}", entry.path().display());
    }
    let (ok, said) = ends(&[&flags[..], &["--listen", "127.0.0.1:0"]].concat());
    assert!(!ok && said.contains("another process keeps its data in"), "{said}");
    drop(running);
    drop(Running::start(&flags));
}

/// Only the page's port is open: what is kept is in files of this process.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_opens_no_port_but_the_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(&["--data", folder.path().to_str().expect("UTF-8")]);
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", running.child.id())).expect("its files");
    let sockets: Vec<_> = sockets
        .filter_map(|file| std::fs::read_link(file.expect("a file").path()).ok())
        .filter_map(|file| file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
        .collect();
    let listening: Vec<String> = ["tcp", "tcp6"]
        .into_iter()
        .flat_map(|family| {
            let table = std::fs::read_to_string(format!("/proc/{}/net/{family}", running.child.id()));
            let rows: Vec<_> = table.unwrap_or_default().lines().map(str::to_owned).collect();
            rows
        })
        .filter(|row| {
            let row: Vec<_> = row.split_whitespace().collect();
            row.get(3) == Some(&"0A") && row.get(9).is_some_and(|inode| sockets.iter().any(|s| s == inode))
        })
        .collect();
    assert_eq!(listening.len(), 1, "{listening:?}");
}

#[test]
fn a_folder_of_an_earlier_release_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("tables.db"), "old").expect("written");
    let (ok, said) = ends(&["--data", folder.path().to_str().expect("UTF-8")]);
    assert!(!ok && said.contains("holds tables of release 0.1"), "{said}");
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 1, "nothing was made in it");
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_as_it_is() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--data", folder.path().to_str().expect("UTF-8")];
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(folder.path(), mode(0o755)).expect("set");
    std::fs::create_dir(folder.path().join("uploads")).expect("made");
    std::fs::write(folder.path().join("uploads/thesis.doc"), "precious").expect("written");
    let (ok, said) = ends(&flags);
    assert!(!ok && said.contains("holds something else"), "{said}");
    let found = std::fs::metadata(folder.path()).expect("it is there").permissions().mode();
    assert_eq!(found & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing was made in it");

    // Other programs, too, have an empty file of this name.
    std::fs::write(folder.path().join("lock"), "").expect("written");
    let (ok, said) = ends(&flags);
    assert!(!ok && said.contains("holds something else"), "{said}");

    // Among the files of this program, those of others stay too, and what was restored becomes private.
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--data", folder.path().to_str().expect("UTF-8")];
    drop(Running::start(&flags));
    let leads = folder.path().join("leads.db");
    let document = folder.path().join("uploads/thesis.doc");
    std::fs::write(&document, "precious").expect("written");
    let restored = [&leads, &document, &folder.path().join("lock")];
    restored.iter().for_each(|file| std::fs::set_permissions(file, mode(0o644)).expect("set"));
    drop(Running::start(&flags));
    for file in restored {
        let found = std::fs::metadata(file).expect("it is there").permissions().mode();
        assert_eq!(found & 0o777, 0o600, "{}", file.display());
    }

    let elsewhere = folder.path().join("elsewhere.db");
    std::fs::rename(&leads, &elsewhere).expect("renamed");
    symlink(&elsewhere, &leads).expect("linked");
    let (ok, said) = ends(&flags);
    assert!(!ok && said.contains("leads.db is a symbolic link"), "{said}");
}

#[test]
fn a_folder_with_a_file_of_somebody_else_is_left_as_it_is() {
    for (name, says) in [("leads.db", "not a"), ("status.db", "not a")] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(name), "a text of somebody else".repeat(100)).expect("written");
        let (ok, said) = ends(&["--data", folder.path().to_str().expect("UTF-8")]);
        assert!(!ok && said.contains(says), "{said}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(left.len(), 1, "nothing was made in it: {left:?}");
    }
}

#[test]
#[cfg(unix)]
fn what_is_no_file_or_no_folder_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let flags = ["--data", data.to_str().expect("UTF-8")];
    std::fs::write(&data, "a text").expect("written");
    let (ok, said) = ends(&flags);
    assert!(!ok && said.contains("data is no folder"), "{said}");
    std::fs::remove_file(&data).expect("removed");
    drop(Running::start(&flags));
    for (name, what) in [("lock", "file"), ("leads.db", "file"), ("uploads", "folder")] {
        let (path, kept) = (data.join(name), folder.path().join("kept"));
        std::fs::rename(&path, &kept).expect("moved away");
        // Whoever opens a pipe waits for its other end.
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        let (ok, said) = ends(&flags);
        assert!(!ok && said.contains(&format!("{name} is no {what}")), "{said}");
        std::fs::remove_file(&path).expect("removed");
        std::fs::rename(&kept, &path).expect("put back");
    }
    drop(Running::start(&flags));
}

#[test]
fn a_filter_of_log_lines_that_is_none_is_said() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_frontend"));
    let output = program.env("RUST_LOG", "frontend=loud").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("RUST_LOG"), "{said}");
}

/// Runs the program, which has to end by itself: whether well, and what it said.
fn ends(flags: &[&str]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_frontend"));
    if !flags.contains(&"--listen") {
        program.args(["--listen", "127.0.0.1:0"]);
    }
    let output = program.args(flags).output().expect("it runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_used_is_said_and_exits_with_failure() {
    let (ok, said) = ends(&["--batch-size", "0"]);
    assert!(!ok && said.contains("--batch-size"), "{said}");
    let (ok, said) = ends(&["--retention", "5s"]);
    assert!(!ok && said.contains("say at least 1h"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let new = folder.path().join("new");
    let new = new.to_str().expect("UTF-8");
    let (ok, said) = ends(&["--listen", &address, "--data", new]);
    assert!(!ok && said.contains("cannot listen on") && said.contains(&address), "{said}");
    let (ok, said) = ends(&["--data", new, "--store", "dynamodb", "--table", "jobs"]);
    assert!(!ok && said.contains("leave out --store") && said.contains("STATUS_STORE"), "{said}");
    let (ok, said) = ends(&["--store", "sqlite:status.db"]);
    assert!(!ok && said.contains("for SQLite say --data DIR"), "{said}");
    assert!(!std::path::Path::new(new).exists(), "nothing was made");
}
