//! Creation: what a new job is, and which creation is told that its job is new.

use std::collections::BTreeSet;

use futures::future::join_all;
use status_core::{
    Actor, Clock, Consistency, Created, Error, Job, JobId, NewJob, PageRequest, Policy, Status,
};

use crate::kit::{Kit, file, owner, splitter, totals};

pub(super) async fn a_new_job_is_uploading(kit: Kit) {
    let job = kit.jobs.create(NewJob::new(file("leads.csv"))).await.expect("created");
    assert_eq!((job.status, job.version), (Status::Uploading, 1));
    assert_eq!(job.label, "File Uploading");
    assert_eq!(job.progress.fraction, None);
    assert_eq!(kit.jobs.snapshot(job.id).await.expect("found"), job, "read back as it was answered");
}

pub(super) async fn a_job_without_a_file_is_waiting(kit: Kit) {
    let new = NewJob::titled("Nightly export").with_kind("export").with_hook("mail").child_of(id_of(&kit));
    let job = kit.jobs.create(new).await.expect("created");
    assert_eq!((job.status, job.label.as_str(), job.file.as_ref()), (Status::Uploaded, "Waiting", None));
    assert_eq!((job.title.as_str(), job.kind.as_deref()), ("Nightly export", Some("export")));
    assert_eq!(kit.jobs.snapshot(job.id).await.expect("found"), job, "read back as it was answered");
    let kept = kit.state(job.id).await.job;
    let hooks: Vec<_> = kept.hooks.into_iter().map(|hook| hook.name).collect();
    assert_eq!((hooks, kept.noun.as_deref()), (vec!["mail".to_owned()], Some("Leads")));
    let started = kit.tracker.start(job.id, Some(totals(1)), &splitter()).await.expect("started");
    assert_eq!((started.status, started.label.as_str()), (Status::Processing, "Leads Processing"));
    kit.complete(job.id, [0]).await;
    assert_eq!(kit.snapshot(job.id).await.status, Status::Completed);
}

pub(super) async fn a_key_gives_its_job_again(kit: Kit) {
    let new = NewJob::new(file("leads.csv")).with_key("k-1");
    let first = kit.jobs.create(new.clone()).await.expect("created");
    kit.jobs.finish_upload(first.id).await.expect("uploaded");
    let again = kit.jobs.create(new).await.expect("found again");
    assert_eq!((again.id, again.status), (first.id, Status::Uploaded));
    let other = kit.jobs.create(NewJob::new(file("other.csv")).with_key("k-1")).await;
    assert!(matches!(other, Err(Error::KeyReused)), "{other:?}");
    let other_key = kit.jobs.create(NewJob::new(file("leads.csv")).with_key("k-2")).await;
    assert_ne!(other_key.expect("created").id, first.id);
}

pub(super) async fn a_key_is_its_owners_own(kit: Kit) {
    let new = NewJob::new(file("leads.csv")).with_key("k-1");
    let alices = kit.jobs.create(new.clone()).await.expect("created").id;
    let bobs = kit.tracker.owned_by(owner("bob")).create(new).await.expect("created").id;
    assert_ne!(alices, bobs);
}

pub(super) async fn creating_again_is_creating_once(kit: Kit) {
    for new in [NewJob::new(file("leads.csv")), NewJob::new(file("leads.csv")).with_key("k-1")] {
        let job = job(id_of(&kit), new);
        for _ in 0..2 {
            assert_eq!(kit.store.create(&job).await.expect("created"), Created::New);
        }
        kit.tracker.start(job.id, Some(totals(2)), &splitter()).await.expect("started");
        kit.complete(job.id, [0]).await;
        let before = kit.state(job.id).await;
        assert_eq!(kit.store.create(&job).await.expect("created"), Created::New, "a late repetition");
        assert_eq!(kit.state(job.id).await, before, "what happened meanwhile stays");
    }
}

pub(super) async fn an_id_stands_for_one_job(kit: Kit) {
    let id = id_of(&kit);
    let first = job(id, NewJob::new(file("leads.csv")));
    assert_eq!(kit.store.create(&first).await.expect("created"), Created::New);
    let others = [job(id, NewJob::new(file("other.csv"))), job(id, NewJob::titled("Nightly export"))];
    for other in others {
        let created = kit.store.create(&other).await.expect("an answer");
        assert_eq!(created, Created::Existing(Box::new(first.clone())));
    }
    let found = kit.store.job(id, Consistency::Strong).await.expect("an answer");
    assert_eq!(found.as_ref(), Some(&first));
    assert_eq!(kit.jobs.list(None, &PageRequest::first(9)).await.expect("listed").rows.len(), 1);
}

pub(super) async fn one_key_creates_one_job_whoever_asks_at_once(kit: Kit) {
    const REQUESTS: usize = 8;
    for round in 0..6 {
        let creations = (0..REQUESTS).map(|request| {
            let name = if request % 2 == 0 { "leads.csv" } else { "other.csv" };
            let new = NewJob::new(file(name)).with_key(format!("k-{round}"));
            let jobs = kit.in_turns().jobs;
            tokio::spawn(async move { (name, jobs.create(new).await) })
        });
        let (mut ids, mut names, mut refused) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for creation in join_all(creations).await {
            let (asked_for, created) = creation.expect("nobody panicked");
            match created {
                Ok(job) => {
                    assert_eq!(job.title, asked_for, "nobody is given the job of another request");
                    ids.insert(job.id);
                    names.insert(asked_for);
                }
                Err(Error::KeyReused) => drop(refused.insert(asked_for)),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((ids.len(), names.len(), refused.len()), (1, 1, 1), "{names:?}, refused {refused:?}");
        assert!(names.is_disjoint(&refused));
        let listed = kit.jobs.list(None, &PageRequest::first(99)).await.expect("listed").rows;
        assert_eq!(listed.len(), round + 1, "no second job is left over");
    }
}

fn id_of(kit: &Kit) -> JobId {
    JobId::new(kit.clock.now())
}

fn job(id: JobId, new: NewJob) -> Job {
    new.into_job(id, owner("alice"), &Policy::default(), Actor::OWNER).expect("a good job")
}
