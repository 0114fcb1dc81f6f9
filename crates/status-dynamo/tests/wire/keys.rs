//! Idempotency keys, and who has them.

use crate::*;

#[tokio::test]
async fn a_key_whose_claimer_died_is_taken_over_by_a_job_that_is_born_now() {
    let bench = Bench::open().await;
    let mut policy = Policy::default();
    policy.deadline = Duration::from_secs(3_600);
    let new = || NewJob::titled("import").with_policy(policy.clone()).with_key("k");
    for _ in 0..4 {
        bench.rig.next("PutItem", r#""sk":{"S":"job"}"#, Fault::LosesRequest);
    }
    bench.jobs.create(new()).await.expect_err("the creator dies");
    bench.clock.advance(Duration::from_secs(2 * 3_600));
    let job = bench.jobs.create(new()).await.expect("created");
    assert_eq!(job.created_at, bench.clock.now());
    bench.tracker.start(job.id, None, &Actor::named("splitter")).await.expect("started");
    bench.clock.advance(Duration::from_secs(121));
    bench.tracker.sweep().await.expect("swept");
    assert_eq!(bench.shown(job.id).await.status, Status::Processing);
    assert_eq!(bench.jobs.create(new()).await.expect("found").id, job.id);
}

#[tokio::test]
async fn a_slow_claimer_learns_that_its_key_was_taken_over() {
    let bench = Bench::open().await;
    let held = bench.rig.hold("PutItem", r#""sk":{"S":"job"}"#);
    let jobs = bench.jobs.clone();
    let slow = tokio::spawn(async move { jobs.create(NewJob::titled("a").with_key("k")).await });
    held.came().await;
    bench.clock.advance(Duration::from_secs(60));
    let fast = bench.jobs.create(NewJob::titled("a").with_key("k")).await.expect("created");
    held.let_go();
    let slow = slow.await.expect("no panic").expect("the other's job");
    assert_eq!(slow.id, fast.id);
    assert_eq!(bench.jobs.list(None, &PageRequest::first(9)).await.expect("listed").rows.len(), 1);
    let again = bench.jobs.create(NewJob::titled("a").with_key("k")).await.expect("found");
    assert_eq!(again.id, fast.id);
}

#[tokio::test]
async fn the_key_of_an_expired_job_is_free_though_its_end_was_not_propagated() {
    let bench = Bench::open().await;
    let mut policy = Policy::default();
    policy.retention = Duration::from_secs(3_600);
    let new = |title: &str| NewJob::titled(title).with_policy(policy.clone()).with_key("k");
    let one = bench.jobs.create(new("a")).await.expect("created");
    for _ in 0..4 {
        bench.rig.next("UpdateItem", "key#5#alice#k", Fault::LosesRequest);
    }
    bench.jobs.cancel(one.id, None).await.expect("cancelled");
    bench.clock.advance(Duration::from_secs(4_000));
    let two = bench.jobs.create(new("b")).await.expect("created");
    assert_ne!(two.id, one.id);
    assert_eq!(bench.jobs.create(new("b")).await.expect("found").id, two.id);
}

#[tokio::test]
async fn a_key_is_not_free_before_its_job_is_gone() {
    let bench = Bench::open().await;
    bench.clock.set(1_750_000_000_500);
    let mut policy = Policy::default();
    policy.retention = Duration::from_secs(3_600);
    let new = || NewJob::titled("a").with_policy(policy.clone()).with_key("k");
    let one = bench.jobs.create(new()).await.expect("created");
    bench.jobs.cancel(one.id, None).await.expect("cancelled");
    bench.clock.advance(Duration::from_millis(3_599_600));
    bench.jobs.snapshot(one.id).await.expect("it is still there");
    assert_eq!(bench.jobs.create(new()).await.expect("found").id, one.id);
    bench.clock.advance(Duration::from_millis(401));
    assert_ne!(bench.jobs.create(new()).await.expect("created").id, one.id);
}

#[tokio::test]
async fn the_end_of_a_job_leaves_the_key_alone_that_another_has_by_now() {
    let bench = Bench::open().await;
    let mut policy = Policy::default();
    policy.retention = Duration::from_secs(3_600);
    let new = || NewJob::titled("a").with_policy(policy.clone()).with_key("k");
    let one = bench.jobs.create(new()).await.expect("created");
    bench.jobs.cancel(one.id, None).await.expect("cancelled");
    let ended = bench.tracker.job(one.id).await.expect("there");
    bench.clock.advance(Duration::from_secs(3_602));
    let two = bench.jobs.create(new()).await.expect("created");
    assert_ne!(one.id, two.id);
    bench.store.propagate(&ended).await.expect("repeated");
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bench.jobs.create(new()).await.expect("found").id, two.id);
}
