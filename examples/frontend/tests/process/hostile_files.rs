//! Files that are meant to hurt, in a program that has eight gigabytes of addresses: nobody else notices.

use std::{fs, path::Path};

use super::{Duration, Instant, Running, Write, answer, create, upload, wait_for};

/// With eight gigabytes of addresses.
fn bounded(data: &Path) -> Running {
    Running::bounded("-v 8388608", &["--data", data.to_str().expect("UTF-8")])
}

/// Somebody new uploads a file; where the job is, and the cookie.
fn send(running: &Running, file: &[u8]) -> (String, String) {
    let (job, cookie) = create(running, file.len());
    let mut stream = std::net::TcpStream::connect(&running.address).expect("it listens");
    let path = job.replace("/jobs/", "/uploads/");
    let (host, len) = (&running.address, file.len());
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nContent-Length: {len}\r\n\r\n"
    )
    .expect("sent");
    stream.write_all(file).expect("sent");
    let taken = answer(&mut stream);
    assert!(taken.starts_with("HTTP/1.1 200"), "{taken}");
    (job, cookie)
}

/// The most memory the server has had, in MiB.
fn peak_mib(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1_024
}

/// Whoever comes beside it has a row imported.
fn serves_others(running: &Running, name: &str) {
    let begun = Instant::now();
    let (job, cookie) = upload(running, 1);
    wait_for(running, &cookie, &job, "\"status\":\"completed\"");
    assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn a_hostile_file_fails_in_words_and_nobody_else_notices() {
    let data = tempfile::tempdir().expect("a folder");
    let mut running = bounded(data.path());
    for (name, file, code) in hostile::files() {
        let begun = Instant::now();
        let (job, cookie) = send(&running, &file);
        serves_others(&running, name);
        let failed = wait_for(&running, &cookie, &job, "\"status\":\"failed\"");
        assert!(begun.elapsed() < Duration::from_secs(15), "{name}: {:?}", begun.elapsed());
        assert!(failed.contains(&format!("\"code\":\"{code}\"")), "{name}: {failed}");
    }
    assert!(peak_mib(&running) < 300, "{} MiB", peak_mib(&running));
    let uploads = data.path().join("uploads");
    let begun = Instant::now();
    while !is_empty(&uploads) {
        assert!(begun.elapsed() < Duration::from_secs(5), "files of jobs that are over stay");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal("-TERM");
    assert!(running.child.wait().expect("it ends").success());
}

#[test]
fn a_file_that_ends_its_reader_twice_fails_its_job_and_a_restart_reads_it_no_more() {
    let data = tempfile::tempdir().expect("a folder");
    let mut running = bounded(data.path());
    let begun = Instant::now();
    let (job, cookie) = send(&running, &hostile::deadly());
    let note = data.path().join("uploads").join(job.replace("/jobs/", "")).with_extension("deaths");
    // The server is killed, too, in the second reading: that the first one ended its reader is noted.
    while fs::read_to_string(&note).map_or(true, |ends| ends != "1 1") {
        assert!(begun.elapsed() < Duration::from_secs(15), "it is not read again");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal("-KILL");
    let _ = running.child.wait();
    let mut running = bounded(data.path());
    let failed = wait_for(&running, &cookie, &job, "\"status\":\"failed\"");
    assert!(failed.contains("\"code\":\"file-reading-died\""), "{failed}");
    serves_others(&running, "deadly");
    while !is_empty(&data.path().join("uploads")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Asked to end while it is read, the program ends, and that counts as no death.
    let (job, _) = send(&running, &hostile::deadly());
    let note = data.path().join("uploads").join(job.replace("/jobs/", "")).with_extension("deaths");
    while !note.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let begun = Instant::now();
    running.signal("-TERM");
    assert!(running.child.wait().expect("it ends").success());
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(!note.exists(), "a death is noted that was none");
}
