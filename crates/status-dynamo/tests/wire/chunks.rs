//! Chunks: which are written, and which are left alone.

use crate::*;

#[tokio::test]
async fn a_batch_past_the_total_is_never_seen_by_anybody() {
    let bench = Bench::open().await;
    let id = bench.job(Some(10)).await;
    let held = bench.rig.hold("GetItem", "");
    let stray = bench.reporting(id, done(300));
    held.came().await;
    let before = bench.jobs.snapshot(id).await.expect("readable");
    held.let_go();
    stray.await.expect("no panic").expect_err("it is past the total");
    let after = bench.jobs.snapshot_after(id, &before.token()).await.expect("readable");
    assert_eq!((before.version, before.progress.items.processed), (after.version, 0));
}

#[tokio::test]
async fn a_batch_that_counted_in_the_moment_of_the_seal_stays_and_closes_its_chunk() {
    let bench = Bench::open().await;
    let id = bench.job(None).await;
    // The worker has looked: the total is not known. Before its write comes the seal.
    let held = Held::default();
    bench.rig.next_that(is_first_write, Fault::Holds(held.clone()));
    let stray = bench.reporting(id, done(300));
    held.came().await;
    let looked_after = bench.rig.hold("GetItem", "");
    let totals = Totals { batches: 10, items: None };
    bench.tracker.seal(id, totals, &Actor::named("splitter")).await.expect("sealed");
    held.let_go();
    looked_after.came().await;
    let seen = bench.jobs.snapshot(id).await.expect("readable");
    looked_after.let_go();
    let told = stray.await.expect("no panic");
    assert!(matches!(told, Err(Error::Rejected { .. })), "{told:?}");
    let after = bench.jobs.snapshot_after(id, &seen.token()).await.expect("readable");
    assert!(after.version >= seen.version, "{} after {}", after.version, seen.version);
    assert!(after.progress.items.processed >= seen.progress.items.processed);
    assert!(bench.is_closed("chunk#00001"), "{:?}", bench.rig.with_sk("chunk#00001"));
    assert!(is_past(&bench.report(id, done(301)).await));
    assert_eq!(bench.shown(id).await.progress.items, after.progress.items);
    for index in 0..10 {
        bench.counted(id, done(index)).await;
    }
    assert_eq!(bench.shown(id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_chunk_past_the_total_stays_shut_when_an_answer_is_lost() {
    let bench = Bench::open().await;
    let id = bench.job(Some(10)).await;
    bench.rig.next("UpdateItem", "chunk#00001", Fault::LosesAnswer);
    assert!(is_past(&bench.report(id, done(300)).await));
    assert!(is_past(&bench.report(id, done(301)).await));
    assert_eq!(bench.shown(id).await.progress.items.processed, 0);
}

#[tokio::test]
async fn of_two_batches_past_the_total_at_once_none_is_told_that_it_counted() {
    let bench = Bench::open().await;
    let id = bench.job(Some(10)).await;
    let held = bench.rig.hold("GetItem", "");
    let first = bench.reporting(id, done(300));
    held.came().await;
    assert!(is_past(&bench.report(id, done(301)).await));
    held.let_go();
    first.await.expect("no panic").expect_err("past the total, too");
}

#[tokio::test]
async fn nothing_counts_for_a_job_that_was_erased() {
    let bench = Bench::open().await;
    for lost in ["UpdateItem", "GetItem"] {
        let id = bench.job(None).await;
        bench.tracker.erase(id).await.expect("erased");
        bench.rig.next(lost, id.to_string(), Fault::LosesAnswer);
        for index in 0..3 {
            let told = bench.report(id, done(index)).await;
            assert!(matches!(told, Err(Error::NotFound(_))), "{told:?}");
        }
        assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
    }
}

#[tokio::test]
async fn a_chunk_that_an_erased_job_left_behind_takes_nothing() {
    let bench = Bench::open().await;
    let id = bench.job(None).await;
    // The worker has looked; then comes the erase, and then its write. It dies before it looks again.
    let held = Held::default();
    bench.rig.next_that(is_first_write, Fault::Holds(held.clone()));
    let first = bench.reporting(id, done(0));
    held.came().await;
    bench.tracker.erase(id).await.expect("erased");
    let dies = bench.rig.hold("GetItem", "");
    held.let_go();
    dies.came().await;
    first.abort();
    assert_eq!(bench.rig.with_sk("chunk#00000").len(), 1);
    for index in 0..3 {
        let told = bench.report(id, done(index)).await;
        assert!(matches!(told, Err(Error::NotFound(_))), "{told:?}");
    }
    assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn a_chunk_that_was_made_in_the_moment_of_the_end_expires_with_its_job() {
    let bench = Bench::open().await;
    for told_by_report in [false, true] {
        let id = bench.job(None).await;
        // The worker has looked; then comes the end, and then its write. It dies before it looks again.
        let held = Held::default();
        bench.rig.next_that(is_first_write, Fault::Holds(held.clone()));
        let first = bench.reporting(id, done(0));
        held.came().await;
        let failure = Failure::new(Stage::Split, "x", "x", false);
        bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
        let dies = bench.rig.hold("GetItem", "");
        held.let_go();
        dies.came().await;
        first.abort();
        let expiry = |sk: &str| bench.rig.of_job(id, sk)["ttl_at"]["N"].clone();
        assert_ne!(expiry("chunk#00000"), expiry("job"), "nobody has told the chunk");
        // The message comes again.
        if told_by_report {
            bench.counted(id, done(0)).await;
        } else {
            bench.tracker.begin(id, batch(0)).await.expect("it is over");
        }
        assert_eq!(expiry("chunk#00000"), expiry("job"));
    }
}

#[tokio::test]
async fn a_clean_batch_is_one_write_once_its_chunk_was_looked_at() {
    let bench = Bench::open().await;
    let id = bench.job(Some(300)).await;
    for index in 0..2 {
        bench.counted(id, done(index)).await;
    }
    let before = bench.rig.requests().len();
    for index in 2..12 {
        bench.counted(id, done(index)).await;
    }
    let requests = bench.rig.requests().split_off(before);
    assert_eq!(requests.len(), 10, "{requests:#?}");
    assert!(requests.iter().all(|request| request.starts_with("UpdateItem")), "{requests:#?}");
}

#[tokio::test]
async fn a_chunk_of_a_newer_layout_is_refused_by_every_write() {
    let bench = Bench::open().await;
    let mut policy = tolerant();
    policy.track_starts = true;
    let id = bench.job_with(policy, None).await;
    let newer = json!({"pk": {"S": id.to_string()}, "sk": {"S": "chunk#00000"}, "sv": {"N": "2"},
        "k": {"N": "1"}, "packed": {"S": "1-1"}, "ttl_at": {"N": "9999999999"}});
    bench.rig.put(&newer);
    let at = bench.clock.now();
    let told = bench.store.report(id, &[done(0), done(300)], at).await.expect("an answer for each");
    assert_eq!(told.effects, [(batch(0), Effect::Damaged), (batch(300), Effect::Counted)]);
    let begun = bench.store.begin(id, &[batch(1), batch(301)], at).await.expect("an answer").expect("a job");
    assert_eq!(begun.damaged, [batch(1)]);
    let mut job = bench.store.job(id, Consistency::Strong).await.expect("read").expect("there");
    job.totals = Some(Totals { batches: 9, items: None });
    bench.store.propagate(&job).await.expect("one that cannot be told its size hinders nobody");
    assert_eq!(bench.rig.with_sk("chunk#00000"), [newer]);
}

#[tokio::test]
async fn a_chunk_that_a_newer_release_makes_meanwhile_takes_no_other_batch_with_it() {
    let bench = Bench::open().await;
    let mut policy = tolerant();
    policy.track_starts = true;
    let id = bench.job_with(policy, None).await;
    let held = bench.rig.hold("UpdateItem", "chunk#00001");
    let (store, at) = (bench.store.clone(), bench.clock.now());
    let begun = tokio::spawn(async move { store.begin(id, &[batch(3), batch(300)], at).await });
    held.came().await;
    let newer = json!({"pk": {"S": id.to_string()}, "sk": {"S": "chunk#00001"}, "sv": {"N": "2"}});
    bench.rig.put(&newer);
    held.let_go();
    let begun = begun.await.expect("no panic").expect("an answer for each").expect("a job");
    assert_eq!((begun.damaged, begun.settled.len()), (vec![batch(300)], 2));
}

#[tokio::test]
async fn a_chunk_whose_maker_dies_expires_with_its_job() {
    let bench = Bench::open().await;
    let id = bench.job(None).await;
    let failure = Failure::new(Stage::Process, "x", "x", false);
    bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
    let looks = bench.rig.hold("GetItem", "");
    let late = bench.reporting(id, done(0));
    looks.came().await;
    let looks_again = bench.rig.hold("GetItem", "");
    looks.let_go();
    looks_again.came().await;
    late.abort();
    let chunk = bench.rig.of_job(id, "chunk#00000");
    let expires = chunk["ttl_at"]["N"].as_str().and_then(|seconds| seconds.parse::<i64>().ok());
    let job = bench.store.job(id, Consistency::Strong).await.expect("read").expect("there");
    assert!(expires.is_some_and(|at| at <= job.expires_at().as_second() + 1), "{chunk}");
}

#[tokio::test]
async fn what_only_looks_like_a_chunk_counts_for_nothing() {
    let bench = Bench::open().await;
    let id = bench.job(Some(2)).await;
    bench.counted(id, done(0)).await;
    for sk in ["chunk#0", "chunk#+0000", "chunk#000000", "chunk#99999"] {
        let mut copy = bench.rig.of_job(id, "chunk#00000");
        copy["sk"] = json!({"S": sk});
        bench.rig.put(&copy);
    }
    let shown = bench.shown(id).await;
    assert_eq!((shown.status, shown.progress.batches.completed), (Status::Processing, 1));
    assert!(shown.damaged);
    assert_eq!(bench.tracker.batches(id, BatchState::Completed, 0, 9).await.expect("listed"), [batch(0)]);
    bench.counted(id, done(1)).await;
    assert_eq!(bench.shown(id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_job_may_have_as_many_batches_as_there_are_indices() {
    let bench = Bench::open().await;
    for total in [9_999_872, 9_999_873, 9_999_999, BatchIndex::MAX + 1] {
        let id = bench.job(Some(total)).await;
        bench.counted(id, done(total - 1)).await;
        let failure = Failure::new(Stage::Process, "x", "x", false);
        bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
        let swept = bench.tracker.sweep().await.expect("swept");
        assert_eq!(swept.errors, 0, "{total}: {swept:?}");
        let head = bench.rig.items().into_iter().find(|item| item["pk"]["S"] == id.to_string());
        assert!(head.is_some_and(|head| head.get("due").is_none()), "{total}: its end was propagated");
    }
}

#[tokio::test]
async fn a_damaged_chunk_hinders_no_decision_and_no_other_batch() {
    let bench = Bench::open().await;
    for damage in [json!({"ip": {"S": "many"}}), json!({"k": {"N": "1"}, "c": {"N": "1"}})] {
        let id = bench.job(Some(600)).await;
        bench.counted(id, done(0)).await;
        let mut chunk = json!({"pk": {"S": id.to_string()}, "sk": {"S": "chunk#00001"}, "sv": {"N": "1"},
            "ttl_at": {"N": "9999999999"}});
        chunk.as_object_mut().expect("an item").extend(damage.as_object().expect("an object").clone());
        bench.rig.put(&chunk);
        let with_error = BatchReport::completed(batch(301), 9, 1).with_errors(errors_of(301, 1));
        for reports in [vec![done(1), done(300)], vec![done(2), with_error]] {
            let at = bench.clock.now();
            let told = bench.store.report(id, &reports, at).await.expect("an answer for each").effects;
            assert_eq!([told[0].1, told[1].1], [Effect::Counted, Effect::Damaged]);
        }
        let state = bench.store.read(id, Consistency::Strong).await.expect("read").expect("there");
        assert_eq!((state.damaged.len(), state.facts.counts.completed), (1, 3));
        bench.jobs.cancel(id, None).await.expect("requested");
        bench.clock.advance(Duration::from_secs(3_600));
        bench.tracker.sweep().await.expect("swept");
        assert_eq!(bench.tracker.job(id).await.expect("there").status, Status::Cancelled);
        bench.jobs.erase(id).await.expect("erased");
    }
    assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn what_cannot_be_read_and_is_no_batch_of_the_job_does_not_hold_up_its_end() {
    let bench = Bench::open().await;
    for (sk, sv) in [("note", "1"), ("aside", "1"), ("hook#1", "2"), ("chunk#00007", "9")] {
        let id = bench.job(Some(2)).await;
        bench.rig.put(&json!({"pk": {"S": id.to_string()}, "sk": {"S": sk}, "sv": {"N": sv},
            "ttl_at": {"N": "9999999999"}}));
        bench.counted(id, done(0)).await;
        assert_eq!(bench.tracker.job(id).await.expect("there").status, Status::Processing, "{sk}");
        bench.counted(id, done(1)).await;
        assert_eq!(bench.tracker.job(id).await.expect("there").status, Status::Completed, "{sk}");
    }
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_keeps_no_job_from_its_seal_or_its_end() {
    let bench = Bench::open().await;
    for (sk, total) in [("chunk#00000", 2), ("chunk#00003", 600)] {
        let id = bench.job(None).await;
        bench.rig.put(&json!({"pk": {"S": id.to_string()}, "sk": {"S": sk}, "sv": {"N": "9"},
            "ttl_at": {"N": "9999999999"}}));
        let totals = Totals { batches: total, items: None };
        bench.tracker.seal(id, totals, &Actor::named("splitter")).await.expect("sealed");
        let failure = Failure::new(Stage::Process, "x", "x", false);
        bench.tracker.fail(id, failure, &Actor::named("splitter")).await.expect("failed");
        assert_eq!(bench.tracker.sweep().await.expect("swept").errors, 0, "{sk}");
        assert_eq!(bench.rig.of_job(id, "job").get("due"), None, "{sk}: its end is told");
    }
}
