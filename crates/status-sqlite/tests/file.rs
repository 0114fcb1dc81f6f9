//! The file: how it is made, opened, checked, copied, and what is damaged in it.

mod common;

use std::{fs, path::Path, sync::Arc, time::Duration};

use common::{check, open, raw};
use futures::future::join_all;
use status_core::{
    Actor, BatchIndex, BatchReport, Begin, Clock, Effect, Error, Failure, FileInfo, ItemError, JobId,
    ManualClock, NewJob, OwnedJobs, OwnerId, PageRequest, Policy, Stage, Status, StatusStore, StoreError,
    SystemClock, Tolerance, Totals, Tracker,
};
use status_sqlite::{OpenError, SqliteStore};

fn batch(index: u64) -> BatchIndex {
    BatchIndex::new(index).expect("a small index")
}

fn done(index: u64) -> BatchReport {
    BatchReport::completed(batch(index), 10, 0).took(Duration::from_secs(1))
}

/// Batch `index` with nine items processed and one that failed.
fn with_an_error(index: u64) -> BatchReport {
    let error = ItemError::new(batch(index), Some(index * 10), "lead-unusable", "No e-mail address.");
    BatchReport::completed(batch(index), 9, 1).with_errors([error])
}

fn tracker(store: &SqliteStore) -> Tracker {
    Tracker::new(Arc::new(store.clone()))
}

fn alice(tracker: &Tracker) -> OwnedJobs {
    tracker.owned_by(OwnerId::new("alice").expect("a name"))
}

async fn processing(tracker: &Tracker, policy: Policy, batches: u64) -> JobId {
    let new = NewJob::new(FileInfo::new("leads.csv", 2_000, "text/csv").expect("a file"));
    let id = alice(tracker).create(new.with_policy(policy)).await.expect("created").id;
    let totals = Totals { batches, items: None };
    tracker.start(id, Some(totals), &Actor::named("splitter")).await.expect("started");
    id
}

async fn refused(path: &Path) -> OpenError {
    SqliteStore::open(path).await.expect_err("it cannot be used")
}

#[tokio::test]
async fn what_was_acknowledged_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    let store = open(&path).await;
    let id = processing(&tracker(&store), Policy::default(), 300).await;
    tracker(&store).report(id, vec![done(0), with_an_error(299)]).await.expect("reported");
    let before = alice(&tracker(&store)).snapshot(id).await.expect("there");
    drop(store);
    let files: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!(files.len(), 1, "a closed file has no log: {files:?}");

    let store = open(&path).await;
    assert!(!store.was_checked(), "it was closed cleanly");
    let after = alice(&tracker(&store)).snapshot(id).await.expect("there");
    assert_eq!((after.version, after.progress), (before.version, before.progress));
    let errors = tracker(&store).errors(id, &PageRequest::first(10)).await.expect("listed").rows;
    assert_eq!(errors, with_an_error(299).errors());
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    processing(&tracker(&store), Policy::default(), 1).await;
    store.backup(folder.path().join("copy.db")).await.expect("copied");
    let mut names = Vec::new();
    for file in fs::read_dir(folder.path()).expect("listed") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
        names.push(file.file_name());
    }
    names.sort();
    assert_eq!(names, ["copy.db", "status.db", "status.db-shm", "status.db-wal"]);
}

#[tokio::test]
async fn many_processes_may_make_the_file_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    let stores = join_all((0..8).map(|_| tokio::spawn(SqliteStore::open(path.clone())))).await;
    for store in &stores {
        let store = store.as_ref().expect("no panic").as_ref().expect("it opens");
        processing(&tracker(store), Policy::default(), 1).await;
    }
    drop(stores);
    check(&path);
}

#[tokio::test]
async fn a_newer_file_is_refused_with_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("status.db");
    drop(open(&path).await);
    raw(&path).pragma_update(None, "user_version", 99).expect("set");
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::Newer { found: 99, known: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("update this program"), "{error}");
}

#[tokio::test]
async fn another_programs_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.db");
    raw(&path).execute_batch("CREATE TABLE theirs (a)").expect("made");
    let text = folder.path().join("notes.txt");
    fs::write(&text, "Not a database, but longer than the header of one. ".repeat(40)).expect("written");
    for path in [path, text] {
        let before = fs::read(&path).expect("read");
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
        assert_eq!(fs::read(&path).expect("read"), before);
    }
    let nowhere = folder.path().join("no/such/folder/status.db");
    assert!(matches!(refused(&nowhere).await, OpenError::Io { .. }));
}

/// Copies the file and its log as they are: what a power failure would leave.
fn as_it_lies(path: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let with = |path: &Path| format!("{}{suffix}", path.display());
        fs::copy(with(path), with(to)).expect("copied");
    }
}

#[tokio::test]
async fn a_file_that_was_not_closed_is_checked_and_refused_if_it_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, cut, damaged) =
        (folder.path().join("status.db"), folder.path().join("cut.db"), folder.path().join("damaged.db"));
    let store = open(&path).await;
    let id = processing(&tracker(&store), Policy::default(), 3).await;
    let connection = raw(&path);
    connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).expect("the log is in the file");
    let page: u64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_owner'", [], |row| row.get(0))
        .expect("an index");
    tracker(&store).report(id, vec![done(0)]).await.expect("reported");
    as_it_lies(&path, &cut);
    as_it_lies(&path, &damaged);

    let opened = open(&cut).await;
    assert!(opened.was_checked());
    assert_eq!(tracker(&opened).snapshot_now(id).await.expect("there").progress.batches.completed, 1);

    let mut bytes = fs::read(&damaged).expect("read");
    let first = usize::try_from((page - 1) * 4_096).expect("a small file");
    bytes[first..first + 4_096].fill(0xa5);
    fs::write(&damaged, &bytes).expect("written");
    for time in ["first", "second"] {
        let error = refused(&damaged).await;
        assert!(matches!(error, OpenError::Damaged { .. }), "the {time} time: {error:?}");
        // A log that is left there would be played into the backup.
        assert!(error.to_string().contains("end in `-wal`"), "{error}");
    }
    // Without the log nothing says that it was not closed: so it was the check that found the
    // damage.
    fs::remove_file(format!("{}-wal", damaged.display())).expect("removed");
    drop(open(&damaged).await);
}

#[tokio::test]
async fn damaged_rows_hide_no_damaged_index_from_the_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("status.db"), folder.path().join("copy.db"));
    let store = open(&path).await;
    processing(&tracker(&store), Policy::default(), 3).await;
    let schema = |change: &str| {
        let raw = raw(&path);
        raw.pragma_update(None, "writable_schema", true).expect("set");
        raw.execute_batch(change).expect("changed");
    };
    // A job changes behind the back of an index.
    schema("CREATE TABLE aside AS SELECT * FROM sqlite_schema WHERE name = 'jobs_due'");
    schema("DELETE FROM sqlite_schema WHERE name = 'jobs_due'");
    raw(&path).execute_batch("UPDATE jobs SET due_at = 5").expect("changed");
    schema("INSERT INTO sqlite_schema SELECT * FROM aside");
    let damaged = raw(&path);
    damaged.pragma_update(None, "ignore_check_constraints", true).expect("set");
    damaged
        .execute_batch(
            "WITH RECURSIVE n (n) AS (VALUES (10) UNION ALL SELECT n + 1 FROM n WHERE n < 200)
             INSERT INTO facts (job, number, settled_bits) SELECT 1, n, x'00' FROM n",
        )
        .expect("damaged");
    as_it_lies(&path, &copy);
    let error = refused(&copy).await;
    assert!(
        matches!(&error, OpenError::Damaged { findings, .. } if findings.contains("jobs_due")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_copy_taken_during_work_agrees_with_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let mut policy = Policy::default();
    policy.track_starts = true;
    let id = processing(&tracker(&store), policy, 4_000).await;
    let tracker = tracker(&store);
    let workers = join_all((0..8_u64).map(|worker| {
        let tracker = tracker.clone();
        async move {
            for index in (worker..400).step_by(8) {
                tracker.begin(id, batch(index)).await.expect("begun");
                tracker.report(id, vec![with_an_error(index)]).await.expect("reported");
            }
        }
    }));
    let copies = async {
        let mut copies = Vec::new();
        for number in 0..6 {
            let copy = folder.path().join(format!("copy-{number}.db"));
            store.backup(&copy).await.expect("copied");
            copies.push(copy);
        }
        copies
    };
    let ((), copies) = tokio::join!(async { drop(workers.await) }, copies);
    let mut completed = Vec::new();
    for copy in &copies {
        let opened = open(copy).await;
        assert!(!opened.was_checked(), "a copy is closed cleanly");
        completed
            .push(self::tracker(&opened).snapshot_now(id).await.expect("there").progress.batches.completed);
        drop(opened);
        check(copy);
    }
    assert!(completed.is_sorted() && completed.iter().any(|n| (1..400).contains(n)), "{completed:?}");
    let again = store.backup(&copies[0]).await.expect_err("there is one");
    assert!(matches!(again, StoreError::Unavailable { operation: "backup", .. }), "{again:?}");
}

#[tokio::test]
async fn of_two_copies_to_one_name_at_once_one_is_refused_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let id = processing(&tracker(&store), Policy::default(), 40).await;
    let copies = folder.path().join("copies");
    fs::create_dir(&copies).expect("made");
    fs::write(copies.join("copy.db.partial"), "somebody's").expect("written");
    let to = copies.join("copy.db");
    let made = join_all((0..6).map(|_| store.backup(&to))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    for refused in made.iter().filter_map(|made| made.as_ref().err()) {
        let source = std::error::Error::source(refused).expect("why").to_string();
        assert!(source.contains("exists") || source.contains("already"), "{source}");
    }
    let mut left: Vec<_> =
        fs::read_dir(&copies).expect("listed").map(|file| file.expect("a file").file_name()).collect();
    left.sort();
    assert_eq!(left, ["copy.db", "copy.db.partial"]);
    assert_eq!(fs::read_to_string(copies.join("copy.db.partial")).expect("read"), "somebody's");
    let copy = open(&to).await;
    assert_eq!(tracker(&copy).snapshot_now(id).await.expect("there").progress.batches.pending, Some(40));
}

#[tokio::test]
async fn a_damaged_row_keeps_no_file_shut_that_was_not_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("status.db"), folder.path().join("copy.db"));
    let store = open(&path).await;
    let (tracker, raw) = (tracker(&store), raw(&path));
    let (sound, damaged) =
        (processing(&tracker, Policy::default(), 3).await, processing(&tracker, Policy::default(), 3).await);
    for id in [sound, damaged] {
        tracker.report(id, vec![done(0)]).await.expect("reported");
    }
    raw.pragma_update(None, "ignore_check_constraints", true).expect("set");
    raw.execute("UPDATE facts SET settled_bits = x'00' WHERE job = 2 AND number = 0", []).expect("damaged");
    as_it_lies(&path, &copy);
    let opened = open(&copy).await;
    assert!(opened.was_checked());
    let tracker = self::tracker(&opened);
    tracker.report(sound, vec![done(1)]).await.expect("reported");
    let begun = tracker.begin(damaged, batch(1)).await.expect("begun");
    assert_eq!(begun, Begin::Damaged);
}

#[tokio::test]
async fn a_damaged_row_hides_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let (tracker, raw) = (tracker(&store), raw(store.path()));
    let mut tolerant = Policy::default();
    tolerant.tolerance = Tolerance::Batches(1);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(processing(&tracker, tolerant.clone(), 3).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for record in [
        "record, revision = revision + 5",
        r#"'{"id":"'"#,
        "'{}'",
        "CAST(x'ff' AS TEXT)",
        "(SELECT record FROM jobs WHERE seq = 1)",
    ] {
        let damage = format!("UPDATE jobs SET record = {record}, due_at = 1 WHERE id = ?1");
        raw.execute(&damage, [ids[1].to_string()]).expect("damaged");
        for limit in [1, 2, 10] {
            let (mut page, mut shown, mut damaged) = (PageRequest::first(limit), Vec::new(), Vec::new());
            loop {
                let part = alice(&tracker).list(None, &page).await.expect("listed");
                assert!(part.rows.len() + part.damaged.len() <= limit);
                shown.extend(part.rows.into_iter().map(|job| job.id));
                damaged.extend(part.damaged);
                match part.next {
                    Some(next) => page.cursor = Some(next),
                    None => break,
                }
            }
            assert_eq!(shown, [ids[3], ids[2], ids[0]], "{record}");
            assert_eq!(damaged.len(), 1);
            assert!(damaged[0].subject.contains(&ids[1].to_string()), "{damaged:?}");
        }
        let open = tracker.list_open(&PageRequest::first(10)).await.expect("listed");
        assert_eq!((open.rows.len(), open.damaged.len()), (3, 1));
        let swept = tracker.sweep().await.expect("swept");
        assert_eq!((swept.looked_at, swept.errors), (1, 1), "{swept:?}");
        let refused = tracker.snapshot(ids[1]).await.expect_err("it cannot be read");
        assert!(matches!(&refused, Error::Store(StoreError::Corrupt { .. })), "{refused:?}");
        let refused = tracker.report(ids[1], vec![done(0)]).await.expect_err("nor reported to");
        assert!(matches!(&refused, Error::Store(StoreError::Corrupt { .. })), "{refused:?}");
    }
    tracker.erase(ids[1]).await.expect("it can be deleted");

    // Errors that cannot be read block no decision, and are shown as damaged, alone.
    for index in [0, 1] {
        let failed = BatchReport::failed(batch(index), 10, "llm-refused", "The model refused.");
        tracker.report(ids[0], vec![failed]).await.expect("reported, and decided");
        raw.execute("UPDATE errors SET code = CAST(x'ff' AS TEXT) WHERE batch = 0", []).expect("damaged");
    }
    assert_eq!(tracker.snapshot_now(ids[0]).await.expect("readable").status, Status::Failed);
    let errors = tracker.errors(ids[0], &PageRequest::first(10)).await.expect("listed");
    assert_eq!((errors.rows.len(), errors.damaged.len()), (1, 1));
    let first = tracker.errors(ids[0], &PageRequest::first(1)).await.expect("listed");
    assert_eq!((first.rows.len(), first.damaged.len(), first.next.is_some()), (0, 1, true));

    // So is a job whose sums cannot be read: it is listed, and its neighbours work on.
    tracker.report(ids[2], vec![done(0)]).await.expect("reported");
    raw.execute("UPDATE facts SET moments = x'00' WHERE job = 3", []).expect("damaged");
    let snapshot = tracker.snapshot(ids[2]).await.expect("what is readable");
    assert!(snapshot.damaged && snapshot.progress.batches.completed == 0, "{snapshot:?}");
    let listed = alice(&tracker).list(None, &PageRequest::first(10)).await.expect("listed");
    assert_eq!((listed.rows.len(), listed.rows.iter().filter(|row| row.damaged).count()), (3, 1));
    tracker.report(ids[3], vec![done(0), done(1), done(2)]).await.expect("reported");
    assert_eq!(tracker.snapshot(ids[3]).await.expect("readable").status, Status::Completed);
}

#[tokio::test]
async fn what_is_left_of_a_lost_row_is_no_other_jobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("status.db")).await;
    let (tracker, raw) = (tracker(&store), raw(store.path()));
    let lost = processing(&tracker, Policy::default(), 3).await;
    tracker.report(lost, vec![done(0)]).await.expect("reported");
    raw.pragma_update(None, "foreign_keys", false).expect("set");
    raw.execute("DELETE FROM jobs", []).expect("lost");
    let id = processing(&tracker, Policy::default(), 3).await;
    assert_eq!(tracker.snapshot_now(id).await.expect("there").progress.batches.completed, 0);
}

#[tokio::test]
async fn damaged_sums_or_bits_hinder_no_decision_and_no_other_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
    let store = open(&folder.path().join("status.db")).await.with_clock(clock.clone());
    let (tracker, raw) = (tracker(&store).with_clock(clock.clone()), raw(store.path()));
    let (jobs, actor) = (alice(&tracker), Actor::named("splitter"));
    raw.pragma_update(None, "ignore_check_constraints", true).expect("set");
    let mut policy = Policy::default();
    policy.track_starts = true;
    for (damage, all) in [
        ("UPDATE facts SET items_failed = -1", true),
        ("UPDATE facts SET moments = x'00'", true),
        ("UPDATE facts SET completed = 500", true),
        ("DELETE FROM facts WHERE number = 4294967296", true),
        ("UPDATE facts SET settled_bits = x'00' WHERE number = 1", false),
    ] {
        let mut ids = Vec::new();
        for _ in 0..3 {
            let id = processing(&tracker, policy.clone(), 600).await;
            tracker.report(id, vec![done(0), done(300)]).await.expect("reported");
            ids.push(id);
        }
        raw.execute(damage, []).expect("damaged");
        let [cancelled, failed, late] = ids[..] else { panic!("three jobs") };

        let begun = tracker.begin_all(late, &[batch(0), batch(1), batch(301)]).await.expect("begun").batches;
        let one = if all { Begin::Damaged } else { Begin::Work };
        assert_eq!(begun, [Begin::AlreadyCompleted, one, Begin::Damaged], "{damage}");
        let reported = tracker.report(late, vec![done(1), done(301)]).await;
        if all {
            let refused = reported.expect_err("there is nothing to add to");
            assert!(matches!(refused, Error::Store(StoreError::Corrupt { .. })), "{refused:?}");
        } else {
            let effects = reported.expect("the one").effects;
            assert_eq!(effects, [(batch(1), Effect::Counted), (batch(301), Effect::Damaged)], "{damage}");
        }
        assert!(tracker.snapshot(late).await.expect("shown").damaged || !all);

        jobs.cancel(cancelled, None).await.expect("requested");
        clock.advance(policy.cancel_grace);
        tracker.sweep().await.expect("swept");
        assert_eq!(tracker.job(cancelled).await.expect("there").status, Status::Cancelled, "{damage}");
        let failure = Failure::new(Stage::Process, "given-up", "It was given up.", false);
        tracker.fail(failed, failure, &actor).await.expect("failed");
        clock.advance(policy.processing_timeout);
        tracker.sweep().await.expect("swept");
        assert_eq!(tracker.job(late).await.expect("there").status, Status::Failed, "{damage}");
        for id in ids {
            tracker.errors(id, &PageRequest::first(3)).await.expect("listed");
            jobs.erase(id).await.expect("erased");
        }
    }
}

#[tokio::test]
async fn what_has_expired_is_deleted_with_all_its_rows_and_leaves_its_space() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(ManualClock::at(SystemClock.now().as_millisecond()));
    let store = open(&folder.path().join("status.db")).await.with_clock(clock.clone());
    let tracker = tracker(&store).with_clock(clock.clone());
    let mut policy = Policy::default();
    policy.track_starts = true;
    for _ in 0..3 {
        let id = processing(&tracker, policy.clone(), 40).await;
        for index in 0..40 {
            let error = |item| {
                ItemError::new(batch(index), Some(item), "bad", &"x".repeat(300))
                    .with_input("y".repeat(1_000))
            };
            tracker.begin(id, batch(index)).await.expect("begun");
            let report = BatchReport::completed(batch(index), 0, 60).with_errors((0..60).map(error));
            tracker.report(id, vec![report]).await.expect("reported");
        }
    }
    let living = processing(&tracker, policy, 2).await;
    let keyed = NewJob::titled("a").with_key("k");
    let first = alice(&tracker).create(keyed.clone()).await.expect("created").id;
    alice(&tracker).cancel(first, None).await.expect("cancelled");
    let raw = raw(store.path());
    let size = || {
        raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("in the file");
        fs::metadata(store.path()).expect("its size").len()
    };
    let before = size();
    assert!(before > 8 << 20, "{before}");
    clock.advance(Policy::default().retention);
    let again = alice(&tracker).create(keyed).await.expect("its key is free").id;
    assert_ne!(again, first);
    assert_eq!(store.purge(clock.now()).await.expect("purged"), 3, "the fourth made room for its key");
    assert!(size() < before / 4, "{before} bytes before, {} after", size());
    let empty = ["facts", "failures", "errors", "starts"].map(|table| (table, 0));
    for (table, rows) in [("jobs", 2_i64)].into_iter().chain(empty) {
        let count = raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
        assert_eq!(count.expect("counted"), rows, "{table}");
    }
    assert_eq!(tracker.snapshot(living).await.expect("there").status, Status::Processing);
    check(store.path());
}
