//! A third backend, as somebody else would write one: the simplest that can be. It passes the whole contract; and with a rule
//! broken on purpose, the cases of that rule fail.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Clock, Consistency, Created, Due, Effect, Facts, ItemError,
    Job, JobId, JobState, ManualClock, OwnerId, Page, PageRequest, Settled, Status, StatusStore, StoreError,
    Timestamp, Written,
};
use status_testkit::{Kit, cases, run};

status_testkit::conformance!(async |clock| Arc::new(PlainStore::new(clock, Fault::None)));

/// A rule to break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    CountsRedeliveries,
    ForgetsCorrections,
    ForgetsItemsOfCorrections,
    LosesItems,
    SwapsBlindly,
    RefusesARepeatedSwap,
    IgnoresKeys,
    SharesKeys,
    ListsEverybodysJobs,
    ListsOldestFirst,
    ListsWithoutStatus,
    PagesForever,
    NeverExpires,
    NeverDue,
    AlwaysDue,
    TakesBatchesPastTheTotal,
    SaysNothingIsSettled,
    NeverHintsAtTheEnd,
    HidesLateness,
    ForgetsErrors,
    KeepsOldErrors,
    KeepsEveryError,
    CountsStartsTwice,
    KeepsStartsOfSettled,
    NamesSettledAsMissing,
    ForgetsTheHighest,
    ForgetsTimes,
    FindsWhatIsNotThere,
    RefusesToCreateAgain,
    ChangesWhatIsCreated,
    KeepsNoDecision,
    ListsDueJobsAllAtOnce,
    ForgetsWhatElseIsDue,
}

struct Entry {
    job: Job,
    batches: BTreeMap<BatchIndex, Settled>,
    facts: Facts,
    starts: Vec<(BatchIndex, Timestamp)>,
    errors: Vec<ItemError>,
    due: Option<Timestamp>,
}

/// One lock around one map.
struct PlainStore {
    jobs: Mutex<HashMap<JobId, Entry>>,
    clock: Arc<dyn Clock>,
    fault: Fault,
}

impl std::fmt::Debug for PlainStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainStore").field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl PlainStore {
    fn new(clock: Arc<dyn Clock>, fault: Fault) -> Self {
        Self { jobs: Mutex::default(), clock, fault }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Entry>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = self.clock.now();
        if !self.is(Fault::NeverExpires) {
            jobs.retain(|_, entry| entry.job.expires_at() > now);
        }
        jobs
    }

    fn may_decide(&self, entry: &Entry) -> bool {
        !self.is(Fault::NeverHintsAtTheEnd) && entry.job.is_decided_by(&entry.facts.counts)
    }

    fn record_one(&self, entry: &mut Entry, report: &BatchReport, at: Timestamp) -> Effect {
        let total = entry.job.total().filter(|_| !self.is(Fault::TakesBatchesPastTheTotal));
        if total.is_some_and(|total| report.batch().get() >= total) {
            return Effect::OutOfRange;
        }
        let before = entry.batches.get(&report.batch()).copied();
        let effect = match report.effect(before) {
            Effect::Duplicate if self.is(Fault::CountsRedeliveries) => Effect::Counted,
            Effect::Corrected if self.is(Fault::ForgetsCorrections) => Effect::Duplicate,
            Effect::Corrected if self.is(Fault::ForgetsItemsOfCorrections) => {
                entry.facts.counts.items_failed += report.items();
                Effect::Corrected
            }
            effect => effect,
        };
        if effect == Effect::Duplicate {
            return effect;
        }
        entry.batches.insert(report.batch(), report.settles_as());
        if !self.is(Fault::KeepsStartsOfSettled) {
            entry.starts.retain(|(batch, _)| *batch != report.batch());
        }
        entry.facts.add(entry.job.id, report, effect, at);
        if self.is(Fault::LosesItems) {
            entry.facts.counts.items_processed = entry.facts.counts.completed;
        }
        if self.is(Fault::ForgetsTheHighest) {
            entry.facts.highest = None;
        }
        if self.is(Fault::ForgetsTimes) {
            entry.facts.last_at = None;
        }
        if effect == Effect::Corrected && !self.is(Fault::KeepsOldErrors) {
            entry.errors.retain(|error| error.batch != report.batch());
        }
        if !self.is(Fault::ForgetsErrors) {
            entry.errors.extend(report.errors().iter().cloned());
            entry.errors.sort_by_key(|error| (error.batch, error.item));
            if !self.is(Fault::KeepsEveryError) {
                entry.errors.truncate(usize::try_from(entry.job.policy.max_errors).expect("small"));
            }
        }
        effect
    }
}

#[async_trait]
impl StatusStore for PlainStore {
    async fn create(&self, job: &Job) -> Result<Created, StoreError> {
        let mut jobs = self.jobs();
        let same_key = |entry: &&Entry| {
            let owner = entry.job.owner == job.owner || self.is(Fault::SharesKeys);
            owner && job.idempotency_key.is_some() && entry.job.idempotency_key == job.idempotency_key
        };
        let existing = jobs.values().find(same_key).filter(|entry| entry.job.id != job.id);
        if let Some(entry) = existing.filter(|_| !self.is(Fault::IgnoresKeys)) {
            return Ok(Created::Existing(Box::new(entry.job.clone())));
        }
        if let Some(entry) = jobs.get(&job.id).filter(|_| self.is(Fault::RefusesToCreateAgain)) {
            return Ok(Created::Existing(Box::new(entry.job.clone())));
        }
        let (batches, facts, starts, errors) = Default::default();
        let mut job = job.clone();
        if self.is(Fault::ChangesWhatIsCreated) {
            job.revision += 1;
        }
        let due = Some(job.due_at());
        jobs.entry(job.id).or_insert(Entry { job, batches, facts, starts, errors, due });
        Ok(Created::New)
    }

    async fn job(&self, id: JobId, _: Consistency) -> Result<Option<Job>, StoreError> {
        Ok(self.jobs().get(&id).map(|entry| entry.job.clone()))
    }

    async fn read(&self, id: JobId, _: Consistency) -> Result<Option<JobState>, StoreError> {
        Ok(self.jobs().get(&id).map(|entry| {
            let mut facts = entry.facts.clone();
            facts.running = entry.starts.iter().map(|(_, at)| *at).collect();
            JobState::new(entry.job.clone(), facts)
        }))
    }

    async fn decide(&self, next: &Job) -> Result<(), StoreError> {
        let mut jobs = self.jobs();
        let entry = jobs.get_mut(&next.id).ok_or(StoreError::NotFound(next.id))?;
        if entry.job == *next && !self.is(Fault::RefusesARepeatedSwap) {
            return Ok(());
        }
        if entry.job.revision + 1 != next.revision && !self.is(Fault::SwapsBlindly) {
            return Err(StoreError::Conflict(next.id));
        }
        if !self.is(Fault::KeepsNoDecision) {
            entry.job = next.clone();
            entry.due = Some(next.due_at());
        }
        Ok(())
    }

    async fn propagate(&self, job: &Job) -> Result<(), StoreError> {
        if let Some(entry) = self.jobs().get_mut(&job.id).filter(|entry| entry.job.status.is_terminal()) {
            entry.due = None;
        }
        Ok(())
    }

    async fn begin(
        &self,
        id: JobId,
        batches: &[BatchIndex],
        at: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let mut jobs = self.jobs();
        let Some(entry) = jobs.get_mut(&id) else { return Ok(None) };
        let settled = |batch: &BatchIndex| {
            entry.batches.get(batch).copied().filter(|_| !self.is(Fault::SaysNothingIsSettled))
        };
        let settled: Vec<_> = batches.iter().map(settled).collect();
        let job = entry.job.clone();
        if job.notes_starts() {
            for (batch, _) in
                batches.iter().zip(&settled).filter(|(_, settled)| **settled != Some(Settled::Completed))
            {
                if !self.is(Fault::CountsStartsTwice) {
                    entry.starts.retain(|(started, _)| started != batch);
                }
                entry.starts.push((*batch, at));
            }
        }
        let settled = batches.iter().copied().zip(settled).collect();
        Ok(Some(Begun::new(job, settled, self.may_decide(entry))))
    }

    async fn report(&self, id: JobId, reports: &[BatchReport], at: Timestamp) -> Result<Written, StoreError> {
        let mut jobs = self.jobs();
        let Some(entry) = jobs.get_mut(&id) else {
            let effects = reports.iter().map(|report| (report.batch(), Effect::Counted)).collect();
            return if self.is(Fault::FindsWhatIsNotThere) {
                Ok(Written::new(effects, false, None))
            } else {
                Err(StoreError::NotFound(id))
            };
        };
        let effects =
            reports.iter().map(|report| (report.batch(), self.record_one(entry, report, at))).collect();
        let status = Some(entry.job.status).filter(|_| !self.is(Fault::HidesLateness));
        Ok(Written::new(effects, self.may_decide(entry), status))
    }

    async fn errors(&self, id: JobId, page: &PageRequest) -> Result<Page<ItemError>, StoreError> {
        let skip = page
            .cursor
            .as_deref()
            .map_or(Ok(0), str::parse::<usize>)
            .map_err(|_| StoreError::InvalidCursor)?;
        let errors = self.jobs().get(&id).map(|entry| entry.errors.clone()).unwrap_or_default();
        let rows: Vec<_> = errors.iter().skip(skip).take(page.limit).cloned().collect();
        let next = skip + rows.len();
        let more = next < errors.len();
        Ok(Page::new(rows, more.then(|| next.to_string())))
    }

    async fn batches(
        &self,
        id: JobId,
        which: BatchState,
        from: u64,
        limit: usize,
    ) -> Result<Vec<BatchIndex>, StoreError> {
        let jobs = self.jobs();
        let entry = jobs.get(&id).ok_or(StoreError::NotFound(id))?;
        let seen = entry.facts.highest.map_or(0, |highest| highest.get() + 1);
        let wanted = |batch: &BatchIndex| {
            self.is(Fault::NamesSettledAsMissing) || which.holds(entry.batches.get(batch).copied())
        };
        let all = (from..entry.job.total().unwrap_or(seen)).filter_map(|index| BatchIndex::new(index).ok());
        Ok(all.filter(wanted).take(limit).collect())
    }

    async fn list(
        &self,
        owner: &OwnerId,
        status: Option<Status>,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let after: Option<JobId> =
            page.cursor.as_deref().map(str::parse).transpose().map_err(|_| StoreError::InvalidCursor)?;
        let jobs = self.jobs();
        let mine = |job: &&Job| job.owner == *owner || self.is(Fault::ListsEverybodysJobs);
        let in_status = |job: &&Job| {
            self.is(Fault::ListsWithoutStatus) || status.is_none_or(|status| job.status == status)
        };
        let mut rows: Vec<_> =
            jobs.values().map(|entry| &entry.job).filter(mine).filter(in_status).cloned().collect();
        rows.sort_by_key(|job| std::cmp::Reverse(job.id));
        if self.is(Fault::ListsOldestFirst) {
            rows.reverse();
            rows.retain(|job| after.is_none_or(|after| job.id > after));
        } else if !self.is(Fault::PagesForever) {
            rows.retain(|job| after.is_none_or(|after| job.id < after));
        }
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        assert!(after.is_none() || !self.is(Fault::PagesForever), "the same page again and again");
        let next = rows.last().filter(|_| more).map(|job| job.id.to_string());
        Ok(Page::new(rows, next))
    }

    async fn due(&self, now: Timestamp, page: &PageRequest) -> Result<Page<Due>, StoreError> {
        let after: Option<JobId> = page.position()?;
        let due_at = |entry: &Entry| match self.fault {
            Fault::NeverDue => None,
            Fault::AlwaysDue => Some(entry.job.created_at()),
            _ => entry.due.filter(|at| *at <= now),
        };
        let jobs = self.jobs();
        let due = jobs.values().filter_map(|entry| due_at(entry).map(|at| Due::new(entry.job.id, at)));
        let mut rows: Vec<_> = due.filter(|due| after.is_none_or(|after| due.id > after)).collect();
        rows.sort_unstable_by_key(|due| due.id);
        let more = rows.len() > page.limit && !self.is(Fault::ForgetsWhatElseIsDue);
        if !self.is(Fault::ListsDueJobsAllAtOnce) {
            rows.truncate(page.limit);
        }
        let next = rows.last().filter(|_| more).map(|due| due.id.to_string());
        Ok(Page::new(rows, next))
    }

    async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        let mut jobs = self.jobs();
        let Some(entry) = jobs.get_mut(&due.id) else { return Ok(false) };
        if entry.due != Some(due.at) && !self.is(Fault::AlwaysDue) {
            return Ok(false);
        }
        entry.due = Some(until);
        Ok(true)
    }

    async fn erase(&self, id: JobId) -> Result<(), StoreError> {
        self.jobs().remove(&id);
        Ok(())
    }
}

/// Whether a store with this fault passes the case.
fn passes(fault: Fault, name: &str) -> bool {
    let (_, case) = cases::ALL.iter().find(|(case, _)| *case == name).expect("a case of that name");
    run(async {
        let clock = Arc::new(ManualClock::at(1_770_000_000_000));
        let kit = Kit::over(Arc::new(PlainStore::new(clock.clone(), fault)), clock);
        let case = AssertUnwindSafe(case(kit)).catch_unwind();
        tokio::time::timeout(Duration::from_secs(5), case).await.is_ok_and(|result| result.is_ok())
    })
}

/// What finds each fault.
const FOUND_BY: &[(Fault, &[&str])] = &[
    (
        Fault::CountsRedeliveries,
        &[
            "every_batch_counts_once",
            "batches_add_up_to_the_total",
            "several_outcomes_in_one_call_are_as_one_by_one",
            "the_version_only_grows",
        ],
    ),
    (Fault::ForgetsCorrections, &["a_failed_batch_that_succeeds_moves_to_completed"]),
    (Fault::ForgetsItemsOfCorrections, &["a_failed_batch_that_succeeds_moves_to_completed"]),
    (Fault::KeepsOldErrors, &["a_failed_batch_that_succeeds_moves_to_completed"]),
    (Fault::LosesItems, &["many_workers_count_exactly"]),
    (Fault::SwapsBlindly, &["a_swap_needs_the_revision_it_was_made_from"]),
    (Fault::RefusesARepeatedSwap, &["a_swap_needs_the_revision_it_was_made_from"]),
    (
        Fault::KeepsNoDecision,
        &[
            "commands_say_at_least_this_far",
            "the_same_command_twice_is_once",
            "a_contradiction_names_both_statuses",
            "terminal_is_final",
            "upload_progress_is_a_courtesy",
            "a_read_alone_decides",
            "a_poll_alone_decides",
            "a_failure_nobody_decided_is_decided",
            "nothing_completes_before_the_seal",
            "the_seal_sees_what_settled_before",
            "zero_batches_complete_at_the_seal",
            "cancelling_before_processing_is_at_once",
            "cancelling_in_processing_is_confirmed_by_a_worker",
            "the_last_batch_beats_the_cancel",
            "cancelling_a_terminal_job_is_an_error",
            "by_default_the_first_failed_batch_fails_the_job",
            "tolerated_failures_complete_the_job_partially",
            "a_share_is_judged_when_the_total_is_known",
            "a_watcher_sees_progress_and_the_end",
            "the_history_is_complete_and_bounded",
            "a_completed_job_says_how",
            "many_deciders_decide_once",
            "a_terminal_job_keeps_what_was_done",
        ],
    ),
    (Fault::RefusesToCreateAgain, &["creating_again_is_creating_once"]),
    (Fault::ChangesWhatIsCreated, &["a_new_job_is_uploading"]),
    (Fault::IgnoresKeys, &["a_key_gives_its_job_again"]),
    (Fault::SharesKeys, &["a_key_is_its_owners_own"]),
    (Fault::ListsEverybodysJobs, &["owners_see_only_their_own"]),
    (Fault::ListsOldestFirst, &["jobs_are_listed_newest_first"]),
    (Fault::ListsWithoutStatus, &["jobs_are_listed_newest_first"]),
    (Fault::PagesForever, &["jobs_are_listed_newest_first"]),
    (Fault::NeverExpires, &["retention_counts_from_the_terminal_decision"]),
    (
        Fault::NeverDue,
        &[
            "a_sweep_alone_decides",
            "an_unheard_cancel_is_confirmed_by_the_sweeper",
            "the_sweeper_fails_what_is_past_its_deadline",
        ],
    ),
    (Fault::AlwaysDue, &["the_sweeper_leaves_the_living_alone"]),
    (Fault::ListsDueJobsAllAtOnce, &["due_jobs_are_listed_page_by_page"]),
    (Fault::ForgetsWhatElseIsDue, &["due_jobs_are_listed_page_by_page"]),
    (Fault::TakesBatchesPastTheTotal, &["a_batch_past_the_total_is_an_error"]),
    (Fault::SaysNothingIsSettled, &["every_batch_counts_once"]),
    (
        Fault::NeverHintsAtTheEnd,
        &["the_last_batch_decides", "redelivery_alone_decides", "a_late_duplicate_alone_decides"],
    ),
    (Fault::HidesLateness, &["a_late_batch_counts_and_moves_nothing"]),
    (Fault::ForgetsErrors, &["failed_items_are_listed_page_by_page"]),
    (Fault::KeepsEveryError, &["errors_are_bounded"]),
    (Fault::CountsStartsTwice, &["starts_are_counted_once"]),
    (Fault::KeepsStartsOfSettled, &["starts_are_counted_once"]),
    (Fault::NamesSettledAsMissing, &["unsettled_batches_are_known"]),
    (Fault::ForgetsTheHighest, &["sealing_twice_is_sealing_once"]),
    (Fault::ForgetsTimes, &["silence_is_a_stall"]),
    (Fault::FindsWhatIsNotThere, &["what_is_not_there_is_not_found"]),
];

#[test]
fn a_broken_rule_is_found_by_the_cases_of_that_rule() {
    for (fault, cases) in FOUND_BY {
        for case in *cases {
            assert!(!passes(*fault, case), "{case} does not find {fault:?}");
        }
    }
}

#[test]
fn every_case_finds_a_broken_rule_and_passes_on_a_sound_store() {
    for (case, _) in cases::ALL {
        assert!(FOUND_BY.iter().any(|(_, cases)| cases.contains(case)), "{case} finds nothing");
        assert!(passes(Fault::None, case), "{case} fails on a sound store");
    }
}
