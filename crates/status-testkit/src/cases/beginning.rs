//! Before work begins: what a worker is told of each batch of a delivery, and whose start is noted.

use std::collections::{BTreeMap, BTreeSet};

use status_core::{Begin, Clock, Command, Policy, Settled, Status, Timestamp};

use crate::kit::{Kit, batch, done, gave_up, splitter, tolerant, totals, tracking};

pub(super) async fn each_batch_of_a_delivery_gets_its_own_answer(kit: Kit) {
    let id = kit.processing_with(tolerant(), 300).await;
    kit.complete(id, [0, 256]).await;
    kit.fail(id, [1]).await;
    let past = Begin::OutOfRange { total: 300 };
    let expected = [
        (299, Begin::Work),
        (0, Begin::AlreadyCompleted),
        (5, Begin::Work),
        (300, past),
        (5, Begin::Repeated),
        (256, Begin::AlreadyCompleted),
        (1, Begin::Work),
        (255, Begin::Work),
        (0, Begin::Repeated),
        (9_999_999, past),
        (257, Begin::Work),
    ];
    let batches: Vec<_> = expected.iter().map(|(index, _)| batch(*index)).collect();
    let assignment = kit.tracker.begin_all(id, &batches).await.expect("begun");
    assert_eq!(assignment.batches, expected.map(|(_, begin)| begin), "in the order asked for");
    assert_eq!(assignment.job.owner.as_str(), "alice");
    let asked = kit.tracker.begin_all(id, &[batch(0), batch(0)]).await.expect("begun").batches;
    assert_eq!(asked, [Begin::AlreadyCompleted, Begin::Repeated]);
    kit.jobs.cancel(id, None).await.expect("requested");
    let over = kit.tracker.begin_all(id, &[batch(9), batch(0), batch(300)]).await.expect("begun").batches;
    assert_eq!(over, [Begin::Over(Status::Cancelled), Begin::AlreadyCompleted, past]);
}

pub(super) async fn the_store_answers_for_each_batch_it_is_asked_for(kit: Kit) {
    let id = kit.processing_with(tolerant(), 600).await;
    kit.complete(id, [0, 255, 512]).await;
    kit.fail(id, [256, 599]).await;
    let (completed, failed) = (Some(Settled::Completed), Some(Settled::Failed));
    let expected = BTreeMap::from(
        [
            (0, completed),
            (1, None),
            (255, completed),
            (256, failed),
            (257, None),
            (512, completed),
            (598, None),
            (599, failed),
        ]
        .map(|(index, settled)| (batch(index), settled)),
    );
    let asked: Vec<_> = expected.keys().rev().chain([&batch(0), &batch(598)]).copied().collect();
    let begun = kit.store.begin(id, &asked, kit.clock.now()).await.expect("begun").expect("found");
    assert_eq!(begun.job, kit.state(id).await.job);
    let answered: BTreeMap<_, _> = begun.settled.into_iter().collect();
    assert_eq!(answered, expected, "the batches that were asked for, each as it stands");
}

pub(super) async fn starts_are_counted_once(kit: Kit) {
    let id = kit.processing_with(tracking(), 4).await;
    let running = async || kit.snapshot(id).await.progress.batches.running;
    assert_eq!(running().await, Some(0));
    kit.tracker.begin_all(id, &[batch(0), batch(1), batch(0)]).await.expect("begun");
    assert_eq!(running().await, Some(2));
    kit.tracker.begin(id, batch(1)).await.expect("a redelivery begins again");
    assert_eq!(running().await, Some(2));
    kit.complete(id, [1, 1]).await;
    assert_eq!(running().await, Some(1));
    assert_eq!(kit.tracker.begin(id, batch(1)).await.expect("asked"), Begin::AlreadyCompleted);
    assert_eq!(running().await, Some(1));
    kit.complete(id, [2, 3]).await;
    assert_eq!(running().await, Some(1), "the worker of batch 0 has crashed, for all anybody knows");
    kit.complete(id, [0]).await;
    let snapshot = kit.snapshot(id).await;
    assert_eq!((snapshot.status, snapshot.progress.batches.running), (Status::Completed, Some(0)));
    let untracked = kit.processing(1).await;
    kit.tracker.begin(untracked, batch(0)).await.expect("begun");
    assert_eq!(kit.snapshot(untracked).await.progress.batches.running, None);
}

pub(super) async fn a_start_is_that_of_the_last_begin(kit: Kit) {
    let id = kit.processing_with(tracking(), 600).await;
    let begin = async |batches: &[u64]| {
        let (batches, at): (Vec<_>, Timestamp) =
            (batches.iter().map(|b| batch(*b)).collect(), kit.clock.now());
        let begun = kit.store.begin(id, &batches, at).await.expect("begun").expect("a job");
        let named: BTreeSet<_> = batches.iter().collect();
        assert_eq!(begun.settled.len(), named.len(), "a batch that is named twice is one batch");
        at
    };
    let running = async || {
        let mut running = kit.state(id).await.facts.running;
        running.sort_unstable();
        running
    };
    let first = begin(&[3, 300, 3]).await;
    assert_eq!(running().await, [first, first], "a batch that is named twice is one batch");
    kit.wait(10);
    let second = begin(&[3, 4]).await;
    assert_eq!(running().await, [first, second, second]);
    kit.fail(id, [300]).await;
    assert_eq!(running().await, [second, second]);
    kit.wait(10);
    for _ in 0..2 {
        begin(&[300]).await;
        assert_eq!(running().await, [second, second], "it stands as failed");
        kit.fail(id, [300]).await;
        assert_eq!(running().await, [second, second], "it has failed again");
    }
}

pub(super) async fn a_start_is_noted_only_where_work_begins(kit: Kit) {
    let begin = async |id, batches: &[u64]| {
        let batches: Vec<_> = batches.iter().map(|b| batch(*b)).collect();
        kit.store.begin(id, &batches, kit.clock.now()).await.expect("an answer").expect("found");
        kit.state(id).await.facts.running.len()
    };
    let id = kit.processing_with(tracking(), 4).await;
    kit.complete(id, [0]).await;
    assert_eq!(begin(id, &[0]).await, 0, "it is completed");
    kit.fail(id, [3]).await;
    assert_eq!(begin(id, &[3]).await, 0, "it stands as failed");
    assert_eq!(begin(id, &[4, 300, 9_999]).await, 0, "the job has no such batch");
    assert_eq!(begin(id, &[0, 1, 4, 999]).await, 1, "only batch 1 runs from now on");
    kit.jobs.cancel(id, None).await.expect("requested");
    assert_eq!(begin(id, &[2]).await, 1, "somebody asked to cancel");
    kit.tracker.begin(id, batch(2)).await.expect("confirmed");
    assert_eq!(begin(id, &[2]).await, 1, "the job is over");
    assert_eq!(begin(kit.create(tracking()).await, &[0]).await, 0, "it has not started");
    assert_eq!(begin(kit.processing(3).await, &[0]).await, 0, "it does not track starts");
    let streaming = kit.streaming_with(tracking()).await;
    assert_eq!(begin(streaming, &[7, 700]).await, 2, "the total is not known yet");
    kit.tracker.seal(streaming, totals(701), &splitter()).await.expect("sealed");
    let next = kit.next(streaming, &Command::Fail(gave_up())).await;
    kit.store.decide(&next).await.expect("swapped in");
    kit.store.report(streaming, &[done(7)], kit.clock.now()).await.expect("late");
    assert_eq!(begin(streaming, &[8]).await, 1, "the job is over");
    assert_eq!(begin(kit.create(Policy::default()).await, &[0]).await, 0);
}
