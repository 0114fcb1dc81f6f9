//! Lists, and items in them that are no jobs.

use crate::*;

#[tokio::test]
async fn an_item_beside_a_due_jobs_head_fails_no_sweep() {
    let bench = Bench::open().await;
    let file = |name| NewJob::new(FileInfo::new(name, 1, "").expect("a file"));
    let one = bench.jobs.create(file("f")).await.expect("created");
    let other = bench.jobs.create(file("g")).await.expect("created");
    let job = one.id.to_string();
    bench.rig.put(&json!({"pk": {"S": job}, "sk": {"S": "hooks"}, "dp": {"S": "due"}, "due": {"N": "5"}}));
    bench.clock.advance(Duration::from_secs(40 * 86_400));
    let swept = bench.tracker.sweep().await.expect("swept");
    assert_eq!((swept.failed, swept.errors), (2, 1), "{swept:?}");
    assert_eq!(bench.tracker.job(other.id).await.expect("there").status, Status::Failed);
}

#[tokio::test]
async fn an_owners_list_goes_on_past_items_that_are_no_jobs() {
    let bench = Bench::open().await;
    let job = bench.jobs.create(NewJob::titled("a")).await.expect("created");
    for n in 0..6 {
        let pk = format!("zz#alien-{n:02}");
        for sk in ["job", "note#1", "x"] {
            bench.rig.put(&json!({"pk": {"S": pk}, "sk": {"S": sk}, "o": {"S": "alice"}}));
        }
    }
    let (mut page, mut seen, mut damaged) = (PageRequest::first(1), Vec::new(), 0);
    for _ in 0..20 {
        let part = bench.jobs.list(None, &page).await.expect("the list goes on");
        seen.extend(part.rows.iter().map(|job| job.id));
        damaged += part.damaged.len();
        match part.next {
            Some(next) => page.cursor = Some(next),
            None => break,
        }
    }
    assert_eq!((seen, damaged), (vec![job.id], 18));
    for cursor in ["", "#", "a#", "#a", "x", "0#ab", "2#ab", "3#ab"] {
        let page = PageRequest { limit: 1, cursor: Some(cursor.into()) };
        let refused = bench.store.list(&OwnerId::new("alice").expect("a name"), None, &page).await;
        assert!(matches!(refused, Err(StoreError::InvalidCursor)), "{cursor:?}: {refused:?}");
    }
}
