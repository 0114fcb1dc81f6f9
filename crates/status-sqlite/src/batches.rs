//! Batches: beginning, reporting and listing them. The functions run inside a transaction.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::ControlFlow,
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, params};
use status_core::{
    BatchIndex, BatchReport, BatchState, Begun, Effect, Facts, JobId, JobState, Settled, Timestamp, Written,
    chunk::{self, Settlements},
};

use crate::{
    errors,
    facts::{self, Sums},
    failure::{Failure, corrupt},
    jobs::{self, Stored},
};

/// The job and its facts.
pub(crate) fn read(connection: &Connection, id: JobId, now: Timestamp) -> Result<Option<JobState>, Failure> {
    let Some(stored) = jobs::find(connection, id, now)? else { return Ok(None) };
    // What cannot be read of the facts is named, and the rest shown.
    let (sums, mut damaged) = match &stored.sums {
        Ok(sums) => (sums.facts.clone(), Vec::new()),
        Err(damaged) => (Facts::default(), vec![damaged.clone()]),
    };
    let mut readable = |read: Result<Facts, Failure>| {
        read.or_else(|failure| {
            damaged.push(failure.damaged(|| format!("the batches of job {id}"))?);
            Ok::<_, Failure>(Facts::default())
        })
    };
    let mut facts = readable(facts::of_its_batches(connection, &stored, sums))?;
    if stored.job.policy.track_starts {
        let started = starts(connection, &stored).map(|starts| {
            let mut facts = Facts::default();
            facts.running = starts;
            facts
        });
        facts.merge(&readable(started)?);
    }
    Ok(Some(JobState::new(Arc::unwrap_or_clone(stored.job), facts).with_damaged(damaged)))
}

/// What a worker finds before it begins; and whether the starts are still to be noted.
pub(crate) fn look(
    connection: &Connection,
    id: JobId,
    batches: &[BatchIndex],
    now: Timestamp,
) -> Result<Option<Begun>, Failure> {
    let Some(stored) = jobs::find(connection, id, now)? else { return Ok(None) };
    let mut chunks = Chunks::default();
    let (mut settled, mut damaged) = (Vec::with_capacity(batches.len()), Vec::new());
    for batch in batches {
        let chunk = chunks.get(connection, &stored, *batch)?;
        if let Some(chunk) = chunk {
            settled.push((*batch, chunk.get(chunk::place_of(*batch))));
        }
        // Where there are no sums to add to, work on the batch could not be reported.
        if chunk.is_none() || stored.sums.is_err() {
            damaged.push(*batch);
        }
    }
    let may_decide = stored.sums.as_ref().is_ok_and(|sums| may_decide(connection, &stored, sums));
    Ok(Some(Begun::new(Arc::unwrap_or_clone(stored.job), settled, may_decide).with_damaged(damaged)))
}

/// [`look`], noting `at` as the start of the batches that are to be worked on.
pub(crate) fn begin(
    connection: &Connection,
    id: JobId,
    batches: &[BatchIndex],
    at: Timestamp,
    now: Timestamp,
) -> Result<Option<Begun>, Failure> {
    let Some(begun) = look(connection, id, batches, now)? else { return Ok(None) };
    for batch in starting(&begun) {
        connection
            .prepare_cached(
                "INSERT INTO starts (job, batch, at) SELECT seq, ?2, ?3 FROM jobs WHERE id = ?1
                 ON CONFLICT (job, batch) DO UPDATE SET at = ?3",
            )?
            .execute(params![id.to_string(), place(batch), at.as_millisecond()])?;
    }
    Ok(Some(begun))
}

/// The batches whose start is to be noted.
pub(crate) fn starting(begun: &Begun) -> impl Iterator<Item = BatchIndex> + '_ {
    let total = begun.job.total().unwrap_or(u64::MAX);
    let notes = begun.job.notes_starts();
    let open = begun.settled.iter().filter(move |(batch, settled)| {
        let is_open = settled.is_none() && batch.get() < total;
        notes && is_open && !begun.damaged.contains(batch)
    });
    open.map(|(batch, _)| *batch)
}

/// Records outcomes.
pub(crate) fn report(
    connection: &Connection,
    id: JobId,
    reports: &[BatchReport],
    at: Timestamp,
    now: Timestamp,
) -> Result<Written, Failure> {
    let stored = jobs::get(connection, id, now)?;
    let status = Some(stored.job.status);
    let is_past = |batch: BatchIndex| stored.job.total().is_some_and(|total| batch.get() >= total);
    let Ok(mut sums) = stored.sums.clone() else {
        // There is nothing that a batch could be added to.
        let effect = |batch| if is_past(batch) { Effect::OutOfRange } else { Effect::Damaged };
        let effects = reports.iter().map(|report| (report.batch(), effect(report.batch()))).collect();
        return Ok(Written::new(effects, false, status));
    };
    let mut chunks = Chunks::default();
    let mut effects = Vec::with_capacity(reports.len());
    for report in reports {
        let batch = report.batch();
        let effect = if is_past(batch) {
            Effect::OutOfRange
        } else {
            let chunk = chunks.get(connection, &stored, batch)?;
            chunk.map_or(Effect::Damaged, |chunk| report.effect(chunk.get(chunk::place_of(batch))))
        };
        if effect.is_change() {
            chunks.set(batch, report.settles_as());
            let failed_before = replace_failure(connection, stored.seq, report, effect)?;
            sums.facts.add(id, report, effect, failed_before, at);
            keep(connection, &stored, &mut sums, report, effect)?;
        }
        effects.push((batch, effect));
    }
    if effects.iter().any(|(_, effect)| effect.is_change()) {
        chunks.write(connection, stored.seq)?;
        facts::write_sums(connection, stored.seq, &sums)?;
    }
    let may_decide = may_decide(connection, &stored, &sums);
    Ok(Written::new(effects, may_decide, status))
}

/// Notes how many items are counted of a batch that fails; gives how many were of one that is corrected.
fn replace_failure(
    connection: &Connection,
    seq: i64,
    report: &BatchReport,
    effect: Effect,
) -> Result<u64, Failure> {
    let batch = place(report.batch());
    if report.settles_as() == Settled::Failed {
        let items = i64::try_from(report.items()).unwrap_or(i64::MAX);
        connection
            .prepare_cached("INSERT OR REPLACE INTO failures (job, batch, items) VALUES (?1, ?2, ?3)")?
            .execute(params![seq, batch, items])?;
    }
    if effect != Effect::Corrected {
        return Ok(0);
    }
    let failed = connection
        .prepare_cached("DELETE FROM failures WHERE job = ?1 AND batch = ?2 RETURNING items")?
        .query_row(params![seq, batch], |row| row.get::<_, i64>(0))
        .optional()?;
    // Without its row nothing is taken back: the job is partial then, rather than falsely a success.
    Ok(failed.and_then(|items| u64::try_from(items).ok()).unwrap_or(0))
}

/// Keeps what else there is of a batch that counts: its errors instead of those it had; no start.
fn keep(
    connection: &Connection,
    stored: &Stored,
    sums: &mut Sums,
    report: &BatchReport,
    effect: Effect,
) -> Result<(), Failure> {
    if effect == Effect::Corrected {
        let dropped = errors::drop_of(connection, stored.seq, report.batch())?;
        sums.errors = sums.errors.saturating_sub(dropped);
    }
    let room = stored.job.policy.max_errors.saturating_sub(sums.errors);
    sums.errors += errors::keep(connection, stored.seq, report, room)?;
    if stored.job.policy.track_starts {
        connection
            .prepare_cached("DELETE FROM starts WHERE job = ?1 AND batch = ?2")?
            .execute(params![stored.seq, place(report.batch())])?;
    }
    Ok(())
}

/// The batches from `from` on that stand as `which`.
pub(crate) fn list(
    connection: &Connection,
    id: JobId,
    which: BatchState,
    from: u64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<BatchIndex>, Failure> {
    let stored = jobs::get(connection, id, now)?;
    let end = match stored.job.total() {
        Some(total) => total,
        None => stored.sums()?.facts.highest.map_or(0, |highest| highest.get() + 1),
    };
    let end = end.min(BatchIndex::MAX + 1);
    let mut found = Vec::new();
    // Takes from the batches of one chunk; whether there is room for more.
    let mut take = |number: u64, settlements: &Settlements| {
        let first = number * chunk::SIZE;
        let batches =
            (first.max(from)..(first + chunk::SIZE).min(end)).filter_map(|i| BatchIndex::new(i).ok());
        let stand = batches.filter(|batch| which.holds(settlements.get(chunk::place_of(*batch))));
        found.extend(stand.take(limit - found.len()));
        found.len() < limit
    };
    let mut next = from / chunk::SIZE;
    let untouched = Settlements::default();
    let is_unsettled = which == BatchState::Unsettled;
    facts::each_chunk(connection, &stored, next, |number, settlements| {
        // Chunks without a row, of which nothing is settled.
        while is_unsettled && next < number.min(chunk::chunks_of(end)) {
            if !take(next, &untouched) {
                return ControlFlow::Break(());
            }
            next += 1;
        }
        next = number + 1;
        if take(number, &settlements) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    while is_unsettled && next < chunk::chunks_of(end) && take(next, &untouched) {
        next += 1;
    }
    Ok(found)
}

/// Whether the facts decide the job. What cannot be read decides nothing: whoever reads the job says so.
fn may_decide(connection: &Connection, stored: &Stored, sums: &Sums) -> bool {
    let facts = facts::of_its_batches(connection, stored, sums.facts.clone());
    facts.is_ok_and(|facts| stored.job.is_decided_by(&facts.counts))
}

fn starts(connection: &Connection, stored: &Stored) -> Result<Vec<Timestamp>, Failure> {
    let mut starts = connection.prepare_cached("SELECT at FROM starts WHERE job = ?1 ORDER BY at")?;
    let starts = starts.query_map([stored.seq], |row| row.get::<_, i64>(0))?;
    let damaged = || corrupt(stored.job.id, "the start of a batch is out of range");
    starts.map(|at| Ok(Timestamp::from_millisecond(at?).map_err(|_| damaged())?)).collect()
}

/// A batch in storage.
pub(crate) fn place(batch: BatchIndex) -> i64 {
    i64::try_from(batch.get()).unwrap_or(i64::MAX)
}

/// The chunks that a call has read, as it leaves them.
#[derive(Default)]
struct Chunks(BTreeMap<u64, Option<Settlements>>);

impl Chunks {
    /// The chunk of a batch; `None` if it cannot be read.
    fn get(
        &mut self,
        connection: &Connection,
        stored: &Stored,
        batch: BatchIndex,
    ) -> Result<Option<&Settlements>, Failure> {
        let number = chunk::number_of(batch);
        let chunk = match self.0.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let subject = || format!("chunk {number} of job {}", stored.job.id);
                unknown.insert(match facts::chunk_of(connection, stored, number) {
                    Ok(chunk) => Some(chunk),
                    Err(failure) => failure.damaged(subject).map(|_| None)?,
                })
            }
        };
        Ok(chunk.as_ref())
    }

    fn set(&mut self, batch: BatchIndex, settled: Settled) {
        if let Some(Some(chunk)) = self.0.get_mut(&chunk::number_of(batch)) {
            chunk.set(chunk::place_of(batch), settled);
        }
    }

    fn write(&self, connection: &Connection, seq: i64) -> Result<(), Failure> {
        let readable = self.0.iter().filter_map(|(number, chunk)| Some((*number, chunk.as_ref()?)));
        readable
            .into_iter()
            .try_for_each(|(number, chunk)| facts::write_chunk(connection, seq, number, chunk))
    }
}
