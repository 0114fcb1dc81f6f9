//! What a program reads that stands behind a pipe.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{on_both_stores, operator::Operator};

on_both_stores! {
    rows_are_plain_and_begin_with_whole_ids
    a_line_comes_within_a_second_of_each_change
    a_pipe_that_nobody_reads_ends_the_program_quietly
}

async fn rows_are_plain_and_begin_with_whole_ids(operator: Operator) {
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = operator.job(&format!("a rather long name of a file, {n}.csv"), 4).await;
        operator.complete(id, 0..n).await;
        ids.push(id.to_string());
    }
    // `list | awk '{print $1}'`
    let text = operator.text(&["list"]).await;
    let mut first: Vec<_> =
        text.lines().map(|line| line.split_whitespace().next().expect("a word")).collect();
    first.sort_unstable();
    assert_eq!(first, ids);
    for line in text.lines() {
        let columns: Vec<_> = line.split('\t').collect();
        assert_eq!(columns.len(), 11, "{line}");
        assert_eq!(&columns[1..4], ["alice", "processing", "active"]);
        assert_eq!(columns[5], "4");
        assert!(columns[10].starts_with("a rather long name of a file, "));
    }
}

async fn a_line_comes_within_a_second_of_each_change(operator: Operator) {
    let id = operator.job("leads.csv", 4).await;
    let mut command = operator.command(&["watch", &id.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let _ = sender.send((Instant::now(), line));
        }
    });
    let first = receiver.recv().await.expect("a line").1;
    assert!(first.ends_with("\tLeads Processing, 0/4 batches, 0/40 leads"), "{first}");
    for batch in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        operator.complete(id, [batch]).await;
        let changed = Instant::now();
        let (at, line) = receiver.recv().await.expect("a line");
        assert!(line.contains(&format!("{}/4 batches", batch + 1)), "{line}");
        let delay = at.saturating_duration_since(changed);
        assert!(delay < Duration::from_secs(1), "{line}: {delay:?}");
    }
    assert_eq!(receiver.recv().await, None, "one line for each change");
    assert!(child.wait().expect("it ends").success());
}

async fn a_pipe_that_nobody_reads_ends_the_program_quietly(operator: Operator) {
    let id = operator.job("leads.csv", 4).await;
    for arguments in [&["list"][..], &["show", &id.to_string()], &["history", &id.to_string(), "--json"]] {
        let mut command = operator.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
        assert!(child.wait().expect("it ends").success(), "{arguments:?}");
        assert_eq!(said, "", "{arguments:?}");
    }
}
