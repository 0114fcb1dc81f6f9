//! Errors of items: what is kept, listed, and gone with the job.

use crate::*;

#[tokio::test]
async fn corrected_batches_give_back_the_room_for_errors() {
    let bench = Bench::open().await;
    let id = bench.job(Some(400)).await;
    for index in 0..101 {
        bench.counted(id, failed(index, 100).with_errors(errors_of(index, 100))).await;
        bench.counted(id, done(index)).await;
    }
    let mut policy = tolerant();
    policy.max_errors = 100;
    let small = bench.job_with(policy, Some(256)).await;
    for index in 0..128 {
        bench.counted(small, failed(index, 1)).await;
    }
    for index in 0..128 {
        bench.counted(small, done(index)).await;
    }
    for (id, index) in [(id, 300), (small, 200)] {
        let two = BatchReport::completed(batch(index), 8, 2).with_errors(errors_of(index, 2));
        bench.counted(id, two).await;
        assert_eq!(bench.errors(id).await.len(), 2);
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_takes_no_room_from_the_errors() {
    let bench = Bench::open().await;
    let mut policy = tolerant();
    policy.max_errors = 250;
    let id = bench.job_with(policy, Some(3)).await;
    bench.rig.next("UpdateItem", "ADD n :n", Fault::LosesAnswer);
    for (index, errors) in [(0, 100), (1, 100), (2, 50)] {
        let report = BatchReport::completed(batch(index), 0, errors).with_errors(errors_of(index, errors));
        bench.counted(id, report).await;
    }
    assert_eq!(bench.errors(id).await.len(), 250);
}

#[tokio::test]
async fn a_number_of_errors_that_cannot_be_read_fails_no_report() {
    let bench = Bench::open().await;
    let id = bench.job(Some(2)).await;
    bench.rig.put(&json!({"pk": {"S": format!("{id}#errors")}, "sk": {"S": "count"}, "n": {"S": "many"},
        "ttl_at": {"N": "9999999999"}}));
    for index in [0, 1] {
        let report = BatchReport::completed(batch(index), 0, 100).with_errors(errors_of(index, 100));
        bench.counted(id, report).await;
    }
    assert_eq!(bench.errors(id).await.len(), 200);
    assert_eq!(bench.tracker.job(id).await.expect("there").status, Status::Completed);
}

#[tokio::test]
async fn errors_of_release_0_1_go_with_their_failure_though_the_answer_is_lost() {
    let bench = Bench::open().await;
    let id = bench.job(Some(2)).await;
    let job = id.to_string();
    bench.rig.put(&json!({"pk": {"S": job}, "sk": {"S": "chunk#00000"}, "sv": {"N": "1"}, "cap": {"N": "2"},
        "c": {"SS": ["0"]}, "f": {"SS": ["0"]}, "ix": {"N": "10"}, "l": {"N": "1750000000000"}}));
    bench.rig.put(&json!({"pk": {"S": format!("{job}#errors")}, "sk": {"S": "error#00000000"},
        "sv": {"N": "1"}, "b": {"N": "0"}, "rows": {"S": "[[null,\"x\",\"y\"]]"}}));
    assert_eq!(bench.errors(id).await.len(), 1);
    bench.rig.next("UpdateItem", "DELETE f", Fault::LosesAnswer);
    bench.counted(id, done(0)).await;
    assert_eq!(bench.shown(id).await.progress.items.failed, 0);
    assert_eq!(bench.errors(id).await, []);
}

#[tokio::test]
async fn errors_of_a_newer_layout_are_shown_as_damaged() {
    let bench = Bench::open().await;
    let id = bench.job(Some(3)).await;
    bench.counted(id, failed(0, 10)).await;
    let mut item = bench.rig.with_sk("error#00000000f1").remove(0);
    item["sv"] = json!({"N": "2"});
    bench.rig.put(&item);
    let page = bench.tracker.errors(id, &PageRequest::first(9)).await.expect("listed");
    assert_eq!((page.rows.len(), page.damaged.len()), (0, 1));
    assert!(page.damaged[0].why.contains("update this program"), "{:?}", page.damaged);
}

#[tokio::test]
async fn a_report_within_its_bounds_is_recorded_whatever_its_inputs_are_made_of() {
    let bench = Bench::open().await;
    let id = bench.job(Some(300)).await;
    for (index, text) in (0..).zip(["\u{1}", "\"", "\u{0}", "ä", "\n"]) {
        let errors = (0..100).map(|item| {
            let error = ItemError::new(batch(index), Some(item), "bad", &"\"".repeat(300));
            error.at_line(item).with_input(text.repeat(1_300 / text.len()))
        });
        let report = BatchReport::completed(batch(index), 0, 100).with_errors(errors);
        bench.counted(id, report).await;
        let listed = bench.errors(id).await;
        assert_eq!(listed.len() as u64, 100 * (index + 1));
        assert!(listed.iter().all(|error| error.line.is_some()));
        let first = listed.iter().find(|error| error.batch == batch(index)).expect("listed");
        assert_eq!(first.input, Some(text.repeat(1_300 / text.len())), "inputs are kept as far as they fit");
    }
}

#[tokio::test]
async fn a_damaged_chunk_hides_the_errors_of_no_other() {
    let bench = Bench::open().await;
    let id = bench.job(Some(600)).await;
    for index in [0, 300] {
        let report = BatchReport::completed(batch(index), 9, 1).with_errors(errors_of(index, 1));
        bench.counted(id, report).await;
    }
    let damaged = json!({"pk": {"S": id.to_string()}, "sk": {"S": "chunk#00001"}, "sv": {"N": "1"},
        "ip": {"S": "many"}, "ttl_at": {"N": "9999999999"}});
    bench.rig.put(&damaged);
    let page = bench.tracker.errors(id, &PageRequest::first(9)).await.expect("listed");
    assert_eq!((page.rows.len(), page.damaged.len()), (1, 1), "{page:?}");
    assert_eq!(page.rows[0].batch, batch(0));
    bench.store.erase(id).await.expect("erased");
    assert_eq!(bench.rig.items(), Vec::<serde_json::Value>::new());
    let gone = bench.store.batches(id, BatchState::Failed, 0, 9).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))), "{gone:?}");
}
