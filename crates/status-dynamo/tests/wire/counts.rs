//! Failed items, and what a correction makes of them.

use crate::*;

#[tokio::test]
async fn a_correction_takes_back_what_the_failure_counted_and_no_more() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2]] {
        let bench = Bench::open().await;
        let id = bench.job(Some(2)).await;
        let reports = [
            BatchReport::failed(batch(0), 0, "x", "unreadable"),
            BatchReport::completed(batch(1), 5, 5).with_errors(errors_of(1, 5)),
            done(0),
        ];
        for index in order {
            bench.counted(id, reports[index].clone()).await;
        }
        let shown = bench.shown(id).await;
        assert_eq!((shown.progress.items.failed, shown.outcome), (5, Some(Outcome::Partial)), "{order:?}");
        assert_eq!(bench.errors(id).await.len(), 5);
    }
}

#[tokio::test]
async fn items_of_failed_batches_are_counted_until_they_complete() {
    let bench = Bench::open().await;
    let id = bench.job(Some(40)).await;
    let all = |report: fn(u64) -> BatchReport| (0..33).map(report).collect::<Vec<_>>();
    bench.tracker.report(id, all(|index| failed(index, index))).await.expect("counted");
    assert_eq!(bench.shown(id).await.progress.items.failed, (0..33).sum::<u64>());
    bench.tracker.report(id, all(|index| BatchReport::completed(batch(index), 1, 2))).await.expect("counted");
    let items = bench.shown(id).await.progress.items;
    assert_eq!((items.processed, items.failed), (33, 66));
}

#[tokio::test]
async fn a_failure_that_yesterdays_release_counted_is_taken_back_as_it_did() {
    let bench = Bench::open().await;
    let id = bench.job(Some(3)).await;
    bench.rig.put(&json!({"pk": {"S": id.to_string()}, "sk": {"S": "chunk#00000"}, "sv": {"N": "1"},
        "cap": {"N": "3"}, "c": {"SS": ["0", "1"]}, "f": {"SS": ["0"]}, "ip": {"N": "9"}, "ix": {"N": "11"},
        "l": {"N": "1750000000000"}, "ttl_at": {"N": "9999999999"}}));
    assert_eq!(bench.shown(id).await.progress.items.failed, 11);
    bench.counted(id, failed(2, 4)).await;
    assert_eq!(bench.shown(id).await.progress.items.failed, 15);
    bench.counted(id, done(0)).await;
    assert_eq!(bench.shown(id).await.progress.items.failed, 5);
}
