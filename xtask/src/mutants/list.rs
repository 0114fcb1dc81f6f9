//! The faults. Each breaks one rule of the design in one line; beside it stands who has to notice.

use super::{
    Finder, Mutant,
    Target::{Lib, Test},
};

const fn kit(target: &'static str, tests: &'static str) -> Finder {
    Finder { target: Test(target), tests }
}

/// The store contract over the embedded engine that speaks the DynamoDB API.
const DYNAMO: Finder = kit("embedded", "");
/// The store contract over memory.
const MEMORY: Finder = kit("conformance", "");
/// What is in the table itself.
const ITEMS: Finder = kit("items", "");
/// Faults on the wire, each where it hurts most.
const WIRE: Finder = kit("wire", "");
/// The simulation at every request.
const SIMULATION: Finder = kit("simulated", "");
/// The machine's table.
const MACHINE: Finder = kit("machine", "");
/// Watchers, tokens, and trackers over stores that misbehave.
const TRACKER: Finder = kit("tracker", "");
/// The HTTP interface over one memory, one of its processes lagging behind.
const INTERFACE: Finder = kit("interface", "");
const HTTP: Finder = Finder { target: Lib("status-http"), tests: "" };
/// The command line, over the program itself.
const CLI: Finder = kit("commands", "");
const CLI_PARTS: Finder = Finder { target: Lib("jobstatus-cli"), tests: "" };
const CORE: Finder = Finder { target: Lib("status-core"), tests: "" };

macro_rules! mutants {
    ($($file:literal { $($what:literal: $from:literal => $to:literal, $by:expr;)* })*) => {
        pub(super) const MUTANTS: &[Mutant] = &[$($(
            Mutant { what: $what, file: $file, from: $from, to: $to, found_by: &$by },
        )*)*];
    };
}

mutants! {
    "crates/status-dynamo/src/expression.rs" {
        "counts a batch as often as it is delivered":
            "NOT contains(c, {value})" => "NOT contains(x, {value})", [DYNAMO, SIMULATION];
        "counts a batch that failed and completed twice among the failed":
            "format!(\"contains(f, {value})\")" => "format!(\"NOT contains(x, {value})\")", [DYNAMO, SIMULATION];
        "leaves a corrected batch among the failed":
            "DELETE f :corrected" => "DELETE g :corrected", [DYNAMO, SIMULATION];
        "takes batches past the end of the last chunk":
            "OR cap > :last" => "OR cap >= :last", [DYNAMO, SIMULATION];
        "lets a slow clock turn the last report back":
            "l <= :late)" => "l <> :late)", [DYNAMO, SIMULATION];
        "forgets the bit that lists a batch's errors":
            "i128::from(attempt.listed) - i128::from(replaced)" => "i128::from(attempt.listed.min(replaced))", [DYNAMO, SIMULATION];
        "keeps the bit of errors that a completed batch replaced":
            "Some(chunk) if effect == Effect::Corrected => chunk.listed(report.batch())," => "Some(chunk) if effect == Effect::Duplicate => chunk.listed(report.batch()),", [DYNAMO, SIMULATION];
        "leaves starts of settled batches behind":
            "self.removes.push(format!(\"s{place}\"))" => "self.removes.push(format!(\"x{place}\"))", [DYNAMO, SIMULATION];
        "counts the failed items of a corrected batch twice":
            "self.removes.push(format!(\"x{place}\"))" => "let _ = place", [DYNAMO, WIRE, SIMULATION];
        "keeps the room for errors that a corrected batch had":
            "-= i128::from(with.errors)" => "-= i128::from(with.errors.min(0))", [DYNAMO, WIRE];
        "loses the items that were processed":
            "+= i128::from(processed)" => "+= i128::from(processed.min(1))", [DYNAMO, SIMULATION];
    }
    "crates/status-dynamo/src/report.rs" {
        "keeps a chunk of an ended job whose maker died for thirteen months":
            "job.as_ref().map_or(id.latest_end(), Job::expires_at)" => "id.latest_end()", [kit("wire", "maker_dies")];
        "lets a newer chunk take a whole delivery along":
            "Err(error) if is_of_chunk(&error) => Ok(batches)," => "", [kit("wire", "newer_release")];
        "does not look after a failure":
            "let failed = before.is_some_and(|before| fails || may_have_failed(&before.job, &chunk));" => "let failed = before.is_none() && fails;", [DYNAMO, SIMULATION];
        "never looks whether a full chunk was the last one":
            "part.may_decide = failed || self.may_be_last(id, &chunk).await?;" => "part.may_decide = failed;", [DYNAMO, SIMULATION];
        "believes that the highest chunk is open when it is full":
            "Ok(last || may_have_failed(&job, chunk))" => "Ok(may_have_failed(&job, chunk))", [DYNAMO, SIMULATION];
        "keeps a chunk of batches that the job does not have":
            "total <= number * CHUNK" => "total < number * CHUNK", [WIRE, DYNAMO, SIMULATION];
        "does not tell a late worker whose chunk is new":
            "let status = job.as_ref().map(|job| job.status);" => "let status = None;", [DYNAMO, WIRE];
        "writes a chunk that nobody has checked":
            "None => Look::Before," => "None => Look::Spared,", [DYNAMO, WIRE];
        "keeps the chunk of a job that is gone":
            "if seen.is_some() {" => "if seen.is_some_and(|chunk| chunk.compacted) {", [WIRE, ITEMS, DYNAMO];
    }
    "crates/status-dynamo/src/errors.rs" {
        "counts errors again whose count was not answered":
            "retry_config(RetryConfig::disabled())" => "retry_config(RetryConfig::standard())", [WIRE];
        "overwrites the errors of an earlier attempt":
            "self.put(item.clone()).condition_expression(\"attribute_not_exists(pk)\")" => "self.put(item.clone())", [DYNAMO, SIMULATION];
        "counts its own numbers beside another attempt's errors":
            "Write::Refused(Some(there)) if is_same(&there, &item) => {" => "Write::Refused(Some(_)) => {", [DYNAMO, SIMULATION];
        "lists errors of attempts that never counted":
            "settled == way && chunk.listed(batch) == attempt" => "settled == way && chunk.listed(batch) >= attempt.min(1)", [DYNAMO, SIMULATION];
        "lists more errors than the policy allows":
            "if so_far >= job.policy.max_errors {" => "if so_far > job.policy.max_errors + 100 {", [DYNAMO, SIMULATION];
        "keeps errors for ever":
            "item.insert(layout::TTL.into(), layout::seconds(job.expires_at()));\n    Ok(item)" => "Ok(item)", [ITEMS, SIMULATION];
        "hides the errors behind a damaged one":
            "Err(why) => damaged.push(Damaged { subject" => "Err(_) => return (BTreeMap::new(), damaged), #[cfg(any())] Err(why) => damaged.push(Damaged { subject", [ITEMS];
    }
    "crates/status-dynamo/src/layout.rs" {
        "counts what only looks like a chunk":
            "number <= LAST_CHUNK && chunk_sk(number) == AttributeValue::S(sk.to_owned())" => "number <= LAST_CHUNK", [kit("wire", "looks_like")];
        "goes round in circles at an item that is no job":
            "if is_job { pk.to_owned() } else { format!(\"{}#{sk}{pk}\", sk.len()) }" => "if is_job { pk.to_owned() } else { format!(\"3#{sk}{pk}\") }", [WIRE];
        "writes chunks without an expiry":
            "sv = :sv, ttl_at = if_not_exists(ttl_at, :ttl)" => "sv = :sv, nothing = :ttl", [ITEMS, SIMULATION];
    }
    "crates/status-dynamo/src/lib.rs" {
        "swaps a decision in over any other":
            "\"rev = :rev AND (" => "\"(rev <= :rev OR rev > :rev) AND (", [DYNAMO, SIMULATION];
        "decides about a job whose retention is over":
            "OR ttl_at > :now)\")\n            .expression_attribute_values(\":now\", layout::seconds" => "OR ttl_at > :now OR rev = :rev)\")\n            .expression_attribute_values(\":now\", layout::seconds", [kit("embedded", "retention")];
        "refuses a decision whose answer was lost":
            "if stored == *next {" => "if stored != *next {", [DYNAMO, SIMULATION];
        "leaves out the batches of a damaged chunk":
            "match damaged.iter().find(|(of, _)| *of == Some(number)) {" => "match damaged.iter().find(|(of, _)| *of == Some(number + 1)) {", [kit("items", "damaged_chunk")];
        "does not know of batches after the last that it can read":
            "let unknown = damaged.iter()" => "let unknown = damaged[..0].iter()", [kit("items", "damaged_chunk")];
        "does not tell the last chunk its size":
            "if let Some(total) = job.total() {" => "if let Some(total) = job.total().filter(|total| *total == 1) {", [DYNAMO, SIMULATION];
        "opens a compacted chunk again":
            "total % CHUNK, \"attribute_not_exists(z)\"" => "total % CHUNK, \"attribute_not_exists(nothing)\"", [DYNAMO, SIMULATION];
        "does not retire jobs that are over":
            "if job.status.is_terminal() { self.retire(job).await } else { Ok(()) }" => "Ok(())", [DYNAMO, ITEMS, SIMULATION];
        "notes a start twice for a batch that is named twice":
            "batches.dedup();\n        let mut keys" => "let mut keys", [DYNAMO, SIMULATION];
        "concludes from an eventual read that a job is gone":
            "None => self.head(id, Consistency::Strong).await," => "None => Ok(None),", [SIMULATION];
        "does not let a begin decide":
            "&& (may_have_failed(&job, chunk) || self.may_be_last(id, chunk).await?);" => "&& may_decide && (may_have_failed(&job, chunk) || self.may_be_last(id, chunk).await?);", [DYNAMO, SIMULATION];
        "lets every sweeper have a job":
            "\"due = :at AND" => "\"(due = :at OR due <> :at) AND", [DYNAMO];
        "counts batches past the total as the job's own":
            "facts.merge(&chunk.facts_of(job.total()));" => "facts.merge(&chunk.facts);", [DYNAMO, SIMULATION];
        "notes starts of batches past the total":
            "settled.is_none() && batch.get() < total" => "settled.is_none() && batch.get() <= total", [DYNAMO];
    }
    "crates/status-dynamo/src/create.rs" {
        "says to both of two creators with one key that they were first":
            "Ok(Put::Created(if is_this { Created::New } else { Created::Existing(Box::new(stored)) }))" => "Ok(Put::Created(Created::New))", [ITEMS, WIRE, SIMULATION];
        "claims a key for ever":
            "item.insert(layout::TTL.into(), layout::seconds(job.expires_at()));" => "", [ITEMS, SIMULATION];
        "gives one key to two jobs":
            "attribute_not_exists(pk) OR ttl_at <= :now" => "attribute_not_exists(pk) OR ttl_at <> :now", [DYNAMO, SIMULATION];
    }
    "crates/status-dynamo/src/list.rs" {
        "names what is damaged on two pages":
            "listed.damaged.truncate(damaged_before);" => "let _ = damaged_before;", [kit("items", "one_page")];
        "fails a whole list for one damaged job":
            "listed.damaged.push(damaged(error)?);" => "return Err(error);", [ITEMS];
        "fails a whole sweep for one alien key":
            "Err(error) => due.damaged.push(damaged(error)?)," => "Err(error) => return Err(error),", [ITEMS];
        "forgets what else is due":
            "found.last_evaluated_key.as_ref().map(layout::due_cursor)" => "found.last_evaluated_key.as_ref().map(layout::due_cursor).filter(|_| false)", [DYNAMO];
    }
    "crates/status-dynamo/src/retire.rs" {
        "leaves a chunk alone that was made in the moment of the end":
            "if !job.status.is_terminal() || chunk.over.is_some() {" => "if !job.status.is_terminal() || chunk.over.is_none() {", [WIRE];
        "leaves the job due for ever":
            ".update_expression(\"REMOVE dp, due\")" => ".update_expression(\"REMOVE nothing\")", [DYNAMO, SIMULATION];
        "does not tell the chunks that the job is over":
            "\"SET ttl_at = :ttl, st = :st\"" => "\"SET ttl_at = :ttl, xst = :st\"", [DYNAMO];
        "erases what people typed after the rest":
            "self.delete_all(id, &errors).await?;" => "drop(errors);", [kit("wire", "erased_first")];
    }
    "crates/status-memory/src/entry.rs" {
        "counts a batch as often as it is reported, in memory":
            "if !effect.is_change() {\n            return effect;" => "if effect == Effect::OutOfRange {\n            return effect;", [MEMORY, SIMULATION];
        "takes batches past the total, in memory":
            "self.job.total().is_none_or(|total| batch.get() < total)" => "self.job.total().is_none_or(|total| batch.get() <= total)", [MEMORY, SIMULATION];
        "swaps any decision in, in memory":
            "if self.job.revision + 1 != next.revision {" => "if self.job.revision > next.revision {", [MEMORY, SIMULATION];
        "is not due once it is over, in memory":
            "self.due = Some(next.due_at());" => "self.due = Some(next.due_at()).filter(|_| !next.status.is_terminal());", [MEMORY];
        "is due for ever, in memory":
            "self.due = None;" => "self.due = self.due.or(None);", [MEMORY, SIMULATION];
        "gives a job to every sweeper, in memory":
            "let is_ours = self.due == Some(due.at);" => "let is_ours = self.due.is_some();", [MEMORY];
        "keeps errors past the policy's bound, in memory":
            "errors.truncate(usize::try_from(room).unwrap_or(usize::MAX));" => "errors.truncate(usize::try_from(room.max(100)).unwrap_or(usize::MAX));", [MEMORY, SIMULATION];
        "keeps what a batch failed with when it completes, in memory":
            "self.errors.remove(&batch).map_or(0," => "self.errors.get(&batch).map_or(0,", [MEMORY, SIMULATION];
        "counts batches past the total as the job's own, in memory":
            "facts.set_aside(stray.completed, stray.failed);" => "facts.set_aside(0, stray.failed);", [MEMORY, SIMULATION];
        "wakes nobody, in memory":
            "self.changes.send_replace(self.job.revision + self.facts.version());" => "", [MEMORY, kit("one_process", "")];
        "starts what has completed, in memory":
            "settled.is_none() && self.has(*batch)" => "self.has(*batch)", [MEMORY];
        "takes back what a failed batch completes with, in memory":
            "self.failed.remove(&batch).unwrap_or(0)" => "self.failed.remove(&batch).map_or(0, |_| report.items())", [MEMORY];
    }
    "crates/status-memory/src/index.rs" {
        "forgets jobs that run, in memory":
            "known.expires = job.expires_at();" => "known.expires = job.created_at();", [MEMORY];
        "lets two owners share a key, in memory":
            "let key = job.idempotency_key.clone().map(|key| (job.owner.clone(), key));" => "let key = job.idempotency_key.clone().map(|key| (OwnerId::new(\"x\").expect(\"\"), key));", [MEMORY, SIMULATION];
    }
    "crates/status-core/src/tracker.rs" {
        "takes a slow answer for silence":
            "let decided = machine::decide(&job, &facts, command, by, now);" => "drop(now); let decided = machine::decide(&job, &facts, command, by, self.clock.now());", [kit("tracker", "slow_answer")];
        "records a failure that says more than fits":
            "Failure::new(failure.stage, &failure.code, &failure.message, failure.retryable)" => "failure", [TRACKER];
        "works on a batch as often as a delivery holds it":
            "_ if !named.insert(*batch) => Begin::Repeated," => "_ if named.insert(*batch) && false => Begin::Repeated,", [MEMORY];
        "hands out batches past the total":
            "(_, Some(total)) if batch.get() >= total => Begin::OutOfRange { total }," => "(_, Some(total)) if batch.get() > total => Begin::OutOfRange { total },", [MEMORY, SIMULATION];
        "never gives a failed batch another chance":
            "(Some(Settled::Completed), _) => Begin::AlreadyCompleted," => "(Some(_), _) => Begin::AlreadyCompleted,", [MEMORY, SIMULATION];
        "does not confirm a cancel":
            "Status::Processing if job.cancel_requested.is_some() => {" => "Status::Processing if job.cancel_requested.is_some() && job.finished_at.is_some() => {", [MEMORY];
        "leaves a job that nobody started where it is":
            "Status::Uploading | Status::Uploaded => {\n                match self.apply(id, &Command::Start(None)" => "Status::Uploading | Status::Uploaded if false => {\n                match self.apply(id, &Command::Start(None)", [MEMORY, SIMULATION];
        "does not decide after a report":
            "if written.may_decide || unstarted {" => "if unstarted {", [MEMORY, SIMULATION];
        "takes a missing effect for a duplicate":
            "*effects.get(&batch).ok_or(StoreError::Incomplete { operation: \"report\", id, batch })?" => "*effects.get(&batch).unwrap_or(&Effect::Duplicate)", [TRACKER];
        "counts the second report of a batch in one call":
            "if is_written || !effect.is_change() { effect }" => "if is_written || effect.is_change() { effect }", [MEMORY];
        "prefers the failure of two reports of one batch":
            "distinct.sort_by_key(|report| (report.batch(), report.settles_as()));" => "distinct.sort_by_key(|report| (report.batch(), std::cmp::Reverse(report.settles_as())));", [MEMORY];
        "skips the third step of the seal":
            "self.store.propagate(&state.job).await?;\n        self.reconcile(id).await.map" => "self.store.propagate(&state.job).await?;\n        self.read(id, Consistency::Strong, None).await.map", [Finder { target: Test("tracker"), tests: "while_the_job_is_sealed" }];
        "forgets to propagate the end":
            "if after.status.is_terminal()\n            && let Err(error)" => "if !after.status.is_terminal()\n            && let Err(error)", [MEMORY, SIMULATION];
        "concludes from an eventual read that there is no job":
            "if state.is_none() && consistency == Consistency::Eventual {" => "if state.is_none() && consistency == Consistency::Strong {", [TRACKER, SIMULATION];
        "shows an older state than the one that was named":
            "if seen.is_some_and(|seen| !self.show(&state).covers(seen)) {" => "if seen.is_some_and(|seen| self.show(&state).covers(seen)) {", [TRACKER, SIMULATION];
        "fails a decision for want of the error to name":
            "Err(error) => tracing::warn!(job = %job.id, %error, \"the error to name cannot be read\")," => "Err(error) => panic!(\"{error}\"),", [TRACKER];
        "sweeps only the first page":
            "Some(next) => page.cursor = Some(next),\n                None => break," => "_ => break,", [TRACKER];
        "does not heal an end that was not propagated":
            "return Ok(self.store.propagate(&before.job).await?);" => "return Ok(());", [MEMORY];
        "looks at a job that another sweeper has":
            "if !self.store.postpone(&due, leased.at).await? {" => "if !self.store.postpone(&due, leased.at).await? && false {", [MEMORY];
    }
    "crates/status-core/src/tracker/owned.rs" {
        "shows everybody's history":
            "if job.owner == self.owner { Ok(job) }" => "if job.owner != self.owner || true { Ok(job) }", [MEMORY];
        "gives a key's job for another request":
            "if !existing.is_same_request(&job) => Err(Error::KeyReused)," => "if existing.id == job.id => Err(Error::KeyReused),", [MEMORY, SIMULATION];
        "erases a job that runs":
            "if !status.is_terminal() {" => "if status == Status::Uploading {", [MEMORY, INTERFACE];
        "lists a running job that an old read did not find as one that has just begun":
            "match tracker.read(job.id, Consistency::Eventual, None).await {" => "match tracker.store.read(job.id, Consistency::Eventual).await.map(|state| state.unwrap_or_else(|| JobState::new(job, Facts::default()))).map_err(Error::from) {", [TRACKER];
        "hides an owner's jobs behind a damaged one":
            "Err(Error::Store(StoreError::Corrupt { subject, why })) => {" => "Err(Error::Store(StoreError::Corrupt { subject, why })) if subject.is_empty() => {", [TRACKER, INTERFACE];
    }
    "crates/status-core/src/watch.rs" {
        "leaves a dead feed behind":
            "if feeds.get(&self.id).is_some_and(|feed| Arc::ptr_eq(feed, &self.feed)) {" => "if feeds.get(&self.id).is_some_and(|feed| !Arc::ptr_eq(feed, &self.feed)) {", [TRACKER];
        "shows a watcher an older state":
            "Some(shown) if shown.covers(&seen) => Some(shown)," => "Some(shown) if shown.token() != seen => Some(shown),", [TRACKER, SIMULATION];
        "hides from a watcher that facts went back":
            "Ok(snapshot) => Some(Arc::new(snapshot))," => "Ok(snapshot) => Some(Arc::new(snapshot)).filter(|s| s.covers(seen)),", [TRACKER];
        "begins a feed under the lock that its end takes":
            "        tokio::spawn(self.clone().feed(running));\n        receiver" => "        let _feeds = self.feeds.lock();\n        tokio::spawn(self.clone().feed(running));\n        receiver", [TRACKER];
        "ends a watcher's stream with its feed":
            "if feed.changed().await.is_err() {" => "if feed.changed().await.is_err() && { return } {", [TRACKER];
        "shows a watcher nothing that runs with the clock":
            "if seen.is_none_or(|seen| snapshot.token() != seen) {" => "if seen.is_none_or(|_| last.as_ref().is_none_or(|last| snapshot.version != last.version)) {", [TRACKER, MEMORY];
    }
    "crates/status-core/src/token.rs" {
        "has one token for two numbers of running batches":
            "batches.failed, batches.running)" => "batches.failed, batches.total)", [TRACKER, MEMORY, CORE];
        "has one token for two estimates":
            "snapshot.estimate.as_ref().map(|estimate| &estimate.text).hash(hasher);" => "", [TRACKER, MEMORY, CORE];
        "takes a state with fewer completed batches for a newer one":
            "&& self.completed >= other.completed" => "", [CORE, SIMULATION];
    }
    "crates/status-http/src/seen.rs" {
        "answers a poll with an older state":
            "jobs.snapshot_after(id, &seen).await?" => "jobs.snapshot_after(id, &seen).await.and(jobs.snapshot(id).await)?", [INTERFACE];
        "says that a newer state has not changed":
            "self.tokens.contains(&snapshot.token())" => "self.tokens.iter().any(|seen| snapshot.covers(seen))", [INTERFACE];
        "takes the first of several tokens for the furthest":
            "if other.covers(&one) { other } else { one }" => "if other.covers(&one) { one } else { other }", [HTTP];
    }
    "crates/status-http/src/events.rs" {
        "resumes a stream with an older state":
            "watch_after(id, seen::last_event(&headers).as_ref())" => "watch_after(id, seen::last_event(&headers).as_ref().filter(|_| false))", [INTERFACE];
        "ends a wait with an older state":
            "watch_after(id, known.furthest().as_ref())" => "watch_after(id, known.furthest().as_ref().filter(|_| false))", [INTERFACE];
        "gives all events of one status the same id":
            ".id(snapshot.token().to_string())" => ".id(snapshot.status.to_string())", [INTERFACE];
    }
    "crates/status-http/src/table.rs" {
        "downloads formulas":
            "if is_formula { format!" => "if is_formula && cell.is_empty() { format!", [HTTP];
    }
    "crates/status-core/src/machine.rs" {
        "completes a job with more failures than it tolerates":
            "if self.job.policy.tolerance.is_exceeded(counts.failed, total) {" => "if self.job.policy.tolerance.is_exceeded(counts.failed.saturating_sub(1), total) {", [MACHINE, MEMORY, SIMULATION];
        "completes a job at the batch before the last":
            "counts.settled() < total) {" => "counts.settled() + 1 < total) {", [MACHINE, MEMORY, SIMULATION];
        "lets time in the record go back":
            "let now = now.max(job.updated_at);" => "let now = now.min(job.updated_at);", [MACHINE, MEMORY, SIMULATION];
        "fails a job that is busy at its silence":
            "self.facts.last_at.unwrap_or(Timestamp::MIN)" => "Timestamp::MIN", [MACHINE, MEMORY, SIMULATION];
        "knows no deadline":
            "if overdue => {" => "if overdue && silent >= policy.processing_timeout => {", [MACHINE, MEMORY];
        "does not begin a job of which a batch was reported":
            "&& self.facts.highest.is_some() {" => "&& self.facts.highest.is_some() && self.job.started_at.is_some() {", [MACHINE, MEMORY, SIMULATION];
        "lets what cannot be read, and is no batch, hold up the end":
            "if total.is_none_or(|total| counts.settled() < total) {" => "if self.facts.is_incomplete || total.is_none_or(|total| counts.settled() < total) {", [MACHINE];
        "says that a job succeeded that lost items":
            "_ if astray.is_some() => Outcome::Partial," => "", [MEMORY];
        "seals below what has settled":
            "self.facts.highest.filter(|seen| seen.get() >= given.batches)" => "self.facts.highest.filter(|seen| seen.get() > given.batches)", [MACHINE, MEMORY];
    }
    "crates/status-core/src/policy.rs" {
        "judges a part by the whole tolerance":
            "self.is_exceeded(failed.saturating_mul(parts.max(1)), total)" => "self.is_exceeded(failed.saturating_mul(parts.min(1)), total)", [CORE];
    }
    "crates/status-core/src/job.rs" {
        "forgets after a look what time demands before the next":
            "ahead.fold(again, Timestamp::min)" => "ahead.last().map_or(again, |_| again)", [CORE, MEMORY];
    }
    "crates/status-core/src/batch.rs" {
        "takes any number of items":
            "let processed = processed.min(Self::MAX_ITEMS);" => "", [CORE, ITEMS, MEMORY];
        "takes any number of errors":
            "errors.into_iter().take(ItemError::MAX_PER_BATCH).map(" => "errors.into_iter().map(", [CORE, MEMORY];
    }
    "crates/status-core/src/tracker/owned.rs" {
        "forgets what a job's creator calls its items":
            "job.noun = tracker.noun.as_deref().map(str::to_owned);" => "job.noun = None;", [MEMORY];
    }
    "crates/jobstatus-cli/src/aws.rs" {
        "waits for a server for ever":
            "if silent >= patience {" => "if silent >= patience && false {", [CLI];
        "does not say that it tries again":
            "self.told.fetch_max(attempt, Ordering::Relaxed) < attempt" => "self.told.fetch_max(attempt, Ordering::Relaxed) < attempt - 1", [CLI];
    }
    "crates/jobstatus-cli/src/store.rs" {
        "makes a file by reading it":
            "io::ErrorKind::NotFound && makes => {}" => "io::ErrorKind::NotFound => {}", [CLI];
    }
    "crates/jobstatus-cli/src/watch.rs" {
        "gives up a lost connection at once":
            "if !problem.is_passing() ||" => "if problem.is_passing() ||", [CLI];
        "is silent about a lost connection":
            "if !std::mem::replace(&mut self.is_lost, true) {" => "if std::mem::replace(&mut self.is_lost, true) {", [CLI];
        "calls a failed job done":
            "Status::Failed => Code::JobFailed," => "", [CLI];
        "sees changes seconds late":
            "READ_EVERY: Duration = Duration::from_millis(500)" => "READ_EVERY: Duration = Duration::from_millis(2_500)", [CLI];
    }
    "crates/jobstatus-cli/src/screen.rs" {
        "does not notice another width":
            "if size == self.size {" => "if size == size {", [CLI];
        "leaves the terminal's other screen open":
            "queue!(self.out, Show, LeaveAlternateScreen)" => "queue!(self.out, Show)", [CLI];
    }
    "crates/jobstatus-cli/src/text.rs" {
        "lets control characters through":
            "text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()" => "text.to_owned()", [CLI];
        "lets control characters through in JSON":
            "&& steers(c) {" => "&& c == '\u{0}' {", [CLI];
    }
    "crates/jobstatus-cli/src/table.rs" {
        "breaks ids":
            "if names + unbroken > width {" => "if false {", [CLI];
        "leaves titles no room":
            "(left >= self.width_of(*last).min(LAST)).then_some(left)" => "Some(left)", [CLI_PARTS];
    }
    "crates/jobstatus-cli/src/list.rs" {
        "skips jobs between two pages":
            "let rows = (limit - listed.rows.len()).min(PAGE);" => "let rows = PAGE;", [CLI];
        "lists jobs that are not stalled as stalled":
            "(!self.stalled || job.health == Health::Stalled)" => "(!self.stalled || job.health == job.health)", [CLI];
    }
    "crates/status-sqlite/src/facts.rs" {
        "takes a job whose sums are lost for a new one":
            "if lost {" => "if lost && seq < 0 {", [kit("file", "damaged_sums")];
    }
    "crates/status-sqlite/src/jobs.rs" {
        "postpones a job whose retention is over":
            "due_at = ?2 AND expires_at > ?4" => "due_at = ?2 AND expires_at > ?4 - 1e13", [kit("conformance", "forgotten_too")];
    }
    "crates/status-sqlite/src/writer.rs" {
        "tells what followed from a transaction that was undone":
            "(_, Err(of_all)) =>" => "(Some(Err(own)), Err(_)) => Err(own), (_, Err(of_all)) =>", [Finder { target: Lib("status-sqlite"), tests: "undone" }];
    }
    "crates/status-sqlite/src/writer.rs" {
        "acknowledges what SQLite undid unnoticed":
            "return if is_kept { Err(rolled_back()) } else { Ok(()) };" => "return Ok(());", [Finder { target: Lib("status-sqlite"), tests: "undone_unnoticed" }];
    }
    "crates/status-http/src/origin.rs" {
        "takes requests that another site's page makes":
            "if request.method().is_safe() ||" => "if true ||", [kit("interface", "another_site")];
        "believes an origin that begins like a friend's":
            "self.0.contains(origin)" => "self.0.iter().any(|friend| origin.as_bytes().starts_with(friend.as_bytes()))", [kit("interface", "another_site")];
    }
    "crates/status-http/src/limits.rs" {
        "gives one owner all places":
            "if count >= self.most {" => "if count >= self.most + 1_000 {", [kit("interface", "asks_so_many")];
        "never gives a place back":
            "*count -= 1;" => "*count -= 0;", [kit("interface", "at_once")];
        "counts no strangers":
            "if early > self.at_once {" => "if early > self.at_once * 1_000 {", [kit("interface", "strangers")];
    }
    "examples/leads/src/read/xls.rs" {
        "refuses a workbook for a stray cell":
            "if cells(BTreeSet::len) > MAX_CELLS {" => "if cells(between) > MAX_CELLS {", [kit("reading", "stray_cell")];
    }
    "examples/leads/src/read/xlsx.rs" {
        "looks only at parts that have a name of their own":
            "|| named.contains(file)" => "|| named.contains(\"no such part\")", [kit("bombs", "")];
        "reads a worksheet as often as it is listed":
            "id.is_some_and(|id| !seen.insert(id))" => "id.is_some_and(|id| !seen.insert(id) && id.is_empty())", [kit("bombs", "")];
    }
    "examples/frontend/src/reading.rs" {
        "reads a file for ever that ends its reader":
            "before.of_reader >= MAX_DEATHS" => "before.of_reader >= MAX_DEATHS + 100", [kit("process", "reader_twice")];
        "takes a stop for a death":
            "u32::from(self.is_death)" => "u32::from(!self.is_death)", [kit("process", "reader_twice")];
    }
    "examples/frontend/src/owner.rs" {
        "believes a cookie that was made up":
            "hmac::verify(key, secret.as_bytes(), &tag).is_ok()" => "!tag.is_empty()", [Finder { target: Lib("frontend"), tests: "made_up" }];
    }
    "examples/frontend/src/server.rs" {
        "turns new connections away for idle ones":
            "open.busy.load(Ordering::Relaxed) == 0" => "open.busy.load(Ordering::Relaxed) > 1_000", [Finder { target: Lib("frontend"), tests: "gives_way" }];
    }
    "crates/status-sqlite/src/schema.rs" {
        "gives a new job the number of a lost one":
            "PRIMARY KEY AUTOINCREMENT" => "PRIMARY KEY", [kit("file", "lost_row")];
    }
    "examples/frontend/src/pipeline.rs" {
        "splits a file as often as it is told of it":
            ".insert(job) {" => ".insert(job) && false {", [Finder { target: Lib("frontend"), tests: "split_once" }];
        "tries a batch that meets damage for ever":
            "if *receives < MAX_RECEIVES" => "if *receives < u32::MAX", [Finder { target: Lib("frontend"), tests: "damage" }];
    }
    "examples/frontend/src/queue.rs" {
        "works on one owner's batches before another's":
            "lanes.push_back(lane);" => "lanes.push_front(lane);", [Finder { target: Lib("frontend"), tests: "take_turns" }];
    }
    "examples/frontend/src/uploads.rs" {
        "says that a file is there that is not":
            "Ok(fs::try_exists(self.path(job)).await?)" => "Ok(true)", [Finder { target: Lib("frontend"), tests: "has_arrived" }];
        "takes another file than was announced":
            "Some(size) if bytes > size =>" => "Some(size) if bytes > size * 1_000 =>", [Finder { target: Lib("frontend"), tests: "another_size" }];
        "puts a file in the place of one that is split":
            "takes_a_file(&self.tracker.snapshot_now(id).await?)?;" => "let _ = self.tracker.snapshot_now(id).await?;", [Finder { target: Lib("frontend"), tests: "uploads" }];
    }
}
