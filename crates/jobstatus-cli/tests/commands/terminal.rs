//! What a person sees in a terminal.

use std::{
    io::{Read, Write},
    num::NonZeroU16,
    os::unix::process::ExitStatusExt,
    process::Child,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pty_process::{
    Size,
    blocking::{self, Pty},
};
use serde_json::Value;
use status_core::{ItemError, JobId, NewJob};
use vt100::Parser;

use crate::{
    on_both_stores,
    operator::{Operator, batch, credentials},
};

const ROWS: u16 = 40;

on_both_stores! {
    a_job_is_watched_on_a_screen_of_its_own
    tables_fit_80_and_40_columns_and_ids_are_whole
    an_interrupted_watcher_leaves_the_terminal_as_it_was
}

/// The program in a terminal, and what the terminal shows.
struct Terminal {
    pty: Arc<Pty>,
    screen: Arc<Mutex<Parser>>,
    /// Everything that was sent to it.
    sent: Arc<Mutex<Vec<u8>>>,
    child: Child,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn run(operator: &Operator, columns: u16, arguments: &[&str]) -> Self {
        let (pty, pts) = blocking::open().expect("a terminal");
        pty.resize(Size::new(ROWS, columns)).expect("a size");
        let command = blocking::Command::new(env!("CARGO_BIN_EXE_jobstatus"));
        let command =
            command.args(arguments).args(&operator.flags).envs(credentials()).env("TERM", "xterm-256color");
        let child = command.spawn(pts).expect("it runs");
        let pty = Arc::new(pty);
        let screen = Arc::new(Mutex::new(Parser::new(size(ROWS), size(columns), 200)));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let reader = thread::spawn({
            let (pty, screen, sent) = (pty.clone(), screen.clone(), sent.clone());
            move || {
                let mut bytes = [0; 4_096];
                // Linux answers with an error when the program has ended.
                while let Ok(read @ 1..) = (&*pty).read(&mut bytes) {
                    screen.lock().expect("no panic").process(&bytes[..read]);
                    sent.lock().expect("no panic").extend_from_slice(&bytes[..read]);
                }
            }
        });
        Self { pty, screen, sent, child, reader }
    }

    fn resize(&self, columns: u16) {
        // As a terminal does: first it changes, then the program is told.
        let mut screen = self.screen.lock().expect("no panic");
        screen.screen_mut().set_size(size(ROWS), size(columns));
        self.pty.resize(Size::new(ROWS, columns)).expect("a size");
    }

    fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().expect("no panic");
        let contents = screen.screen().contents();
        contents.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn is_alternate(&self) -> bool {
        self.screen.lock().expect("no panic").screen().alternate_screen()
    }

    /// Waits until the terminal shows what is wanted.
    async fn shows(&self, what: &str, is_it: impl Fn(&[String]) -> bool) {
        let begun = Instant::now();
        while !is_it(&self.lines()) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}:\n{}", self.lines().join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the program's end: its exit code, and what the terminal shows then.
    fn end(mut self) -> (i32, Vec<String>, String) {
        let status = self.child.wait().expect("it ends");
        self.reader.join().expect("no panic");
        let screen = self.screen.lock().expect("no panic");
        assert!(!screen.screen().alternate_screen() && !screen.screen().hide_cursor());
        let lines = screen.screen().contents().lines().map(|line| line.trim_end().to_owned()).collect();
        let sent = String::from_utf8(self.sent.lock().expect("no panic").clone()).expect("UTF-8");
        (status.code().or(status.signal()).expect("a code"), lines, sent)
    }
}

fn size(of: u16) -> NonZeroU16 {
    NonZeroU16::new(of).expect("some")
}

fn width(line: &str) -> usize {
    line.chars().count()
}

async fn a_job_is_watched_on_a_screen_of_its_own(operator: Operator) {
    let id = operator.job("a file with quite a long name, longer than forty columns.csv", 4).await;
    operator.complete(id, [0]).await;
    let text = id.to_string();
    let terminal = Terminal::run(&operator, 80, &["watch", &text]);
    let is_whole = |done: u64, columns: usize| {
        let text = text.clone();
        move |lines: &[String]| {
            lines.len() == 7
                && lines[0].starts_with("a file with")
                && lines[1] == "Leads Processing"
                && width(&lines[2]) == columns
                && lines[2].ends_with(&format!(" {}%", done * 25))
                && lines[3] == format!("{done} of 4 batches")
                && lines[4] == format!("{} of 40 leads", done * 10)
                && lines[6] == text
        }
    };
    terminal.shows("80 columns", is_whole(1, 80)).await;
    assert!(terminal.is_alternate());
    operator.complete(id, [1]).await;
    terminal.shows("a batch more", is_whole(2, 80)).await;
    terminal.resize(40);
    terminal.shows("40 columns, and nothing left over", is_whole(2, 40)).await;
    assert!(terminal.lines()[0].ends_with('…'), "cut: {:?}", terminal.lines()[0]);
    terminal.resize(100);
    terminal.shows("100 columns", is_whole(2, 100)).await;
    terminal.resize(40);
    operator.complete(id, [2]).await;
    terminal.shows("another batch at 40", is_whole(3, 40)).await;
    operator.complete(id, [3]).await;
    let (code, lines, _) = terminal.end();
    assert_eq!(code, 0);
    let shown = lines.join("\n");
    assert!(lines.contains(&format!("  {text}")) && shown.contains("Completed"), "{shown}");
    assert!(!shown.contains('█'), "the bar is gone:\n{shown}");
}

async fn tables_fit_80_and_40_columns_and_ids_are_whole(operator: Operator) {
    let id = operator.job("a file with quite a long name, longer than forty columns.csv", 4).await;
    let long = "The model refused to answer, since the row has no name, no company and no address at all.";
    let error = ItemError::new(batch(1), Some(31), "llm-refused", long).at_line(33);
    let failed = status_core::BatchReport::failed(batch(1), 10, "llm-refused", "x").with_errors([error]);
    operator.tracker.report(id, vec![failed]).await.expect("reported");
    let text = id.to_string();
    for columns in [80, 40] {
        for (arguments, words) in [
            (&["list"][..], &["alice", "processing", "1/4"][..]),
            (&["list", "--owner", "alice"], &["alice", "processing", "1/4"]),
            (&["show", &text], &["alice", "Leads Processing", "0 completed, 1 failed"]),
            (&["history", &text], &["sealed", "splitter"]),
            (&["errors", &text], &["llm-refused", "address"]),
            (&["missing", &text], &["0, 2, 3", "3 unsettled batches of 4."]),
        ] {
            let (code, lines, sent) = Terminal::run(&operator, columns, arguments).end();
            assert_eq!(code, 0, "{arguments:?}");
            let shown = lines.join("\n");
            for word in words {
                assert!(shown.contains(word), "{word} at {columns}:\n{shown}");
            }
            let has_id = matches!(arguments[0], "list" | "show");
            let whole = lines.iter().any(|line| line.split(' ').any(|word| word == text));
            assert_eq!(whole, has_id, "{arguments:?} at {columns}:\n{shown}");
            let widest = sent.lines().map(|line| width(line.trim_end())).max().unwrap_or(0);
            assert!(widest <= usize::from(columns), "{arguments:?}: {widest}\n{sent}");
        }
    }
}

async fn an_interrupted_watcher_leaves_the_terminal_as_it_was(operator: Operator) {
    let id = operator.job("leads.csv", 4).await;
    let terminal = Terminal::run(&operator, 80, &["watch", &id.to_string()]);
    terminal.shows("the job", |lines| lines.iter().any(|line| line == "Leads Processing")).await;
    // Control-C.
    (&*terminal.pty).write_all(b"\x03").expect("typed");
    let (code, lines, _) = terminal.end();
    assert_eq!(code, 130);
    assert!(!lines.join("\n").contains("Leads"), "{lines:?}");
}

/// Texts get into a store past this library, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_control_character_reaches_the_terminal() {
    let operator = Operator::on_sqlite().await;
    let id = operator.job_of("alice", NewJob::titled("harmless").with_kind("harmless"), 4).await;
    let error = ItemError::new(batch(1), Some(31), "harmless", "harmless").at_line(33);
    let failed = status_core::BatchReport::failed(batch(1), 10, "x", "x").with_errors([error]);
    operator.tracker.report(id, vec![failed]).await.expect("reported");
    operator.tracker.cancel(id, &status_core::Actor::OWNER, Some("harmless".into())).await.expect("asked");
    harm(&operator, id);
    let text = id.to_string();
    for command in [
        &["list"][..],
        &["list", "--json"],
        &["show", &text],
        &["show", &text, "--json"],
        &["history", &text],
        &["errors", &text],
        &["errors", &text, "--json"],
        &["cancel", &text, "--json"],
    ] {
        let (code, lines, sent) = Terminal::run(&operator, 120, command).end();
        assert_eq!(code, 0, "{command:?}: {lines:?}");
        assert!(lines.join("").contains("[31mred"), "it is shown as text, {command:?}: {lines:?}");
        let steers = |c: &char| (c.is_control() && !matches!(c, '\r' | '\n')) || *c == '\u{202e}';
        assert_eq!(sent.chars().find(steers), None, "{command:?}: {sent:?}");
        let piped = operator.text(command).await;
        assert_eq!(piped.chars().find(|c| steers(c) && *c != '\t'), None, "{command:?}: {piped:?}");
    }
    let shown: Value = operator.json(&["show", &text]).await;
    assert_eq!(shown["title"], HARM, "programs get what is stored");
    let terminal = Terminal::run(&operator, 120, &["watch", &text]);
    terminal.shows("the title", |lines| lines.first().is_some_and(|line| line.contains("[31mred"))).await;
    let sent = String::from_utf8(terminal.sent.lock().expect("no panic").clone()).expect("UTF-8");
    assert!(!sent.contains("\x1b[31m") && !sent.contains('\u{9b}'), "{sent:?}");
    (&*terminal.pty).write_all(b"\x03").expect("typed");
    terminal.end();
}

const HARM: &str = "\u{1b}[31mred\u{9b}2J\u{202e}\u{7f}";

/// Replaces what is harmless.
fn harm(operator: &Operator, id: JobId) {
    let connection = rusqlite::Connection::open(operator.file.as_ref().expect("a file")).expect("it opens");
    connection.busy_timeout(Duration::from_secs(5)).expect("set");
    let in_json = serde_json::to_string(HARM).expect("JSON");
    let in_json = in_json.trim_matches('"');
    let set = "UPDATE jobs SET record = replace(record, 'harmless', ?1) WHERE id = ?2";
    assert_eq!(connection.execute(set, (in_json, id.to_string())).expect("written"), 1);
    let set = "UPDATE errors SET message = ?1, code = ?1";
    assert_eq!(connection.execute(set, [HARM]).expect("written"), 1);
}
