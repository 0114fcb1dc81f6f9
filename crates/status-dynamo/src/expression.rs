//! The update that counts attempts in their chunk, and holds only if nobody has settled these batches in
//! the meantime.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{
    BatchOutcome, BatchReport, Effect, JobId, Moments, Settled, Timestamp, chunk as chunks, clock,
};

use crate::{
    chunk::{Chunk, FailedWith, LISTED, PLACES_IN_NUMBER},
    layout::{self, Item},
    report::Attempt,
};

/// The time of a chunk's last report may go back by this much for each worker whose clock is slower, as when
/// two workers' reports overtake each other. A report that comes from further back leaves it as it is. To
/// never go back would cost a refused write whenever two reports overtake each other.
const OVERTAKING: Duration = Duration::from_secs(1);

/// What is known of a chunk before it is written: whether the job has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Nobody needs to look, if the chunk says that somebody has.
    Spared,
    /// The job was looked at when the chunk was there: the write may say so.
    AtChunk,
    /// The job was looked at when there was no chunk: whoever makes it has to look once more.
    Before,
}

/// An update with its condition.
pub(crate) struct Expression {
    pub(crate) update: String,
    pub(crate) condition: String,
    pub(crate) values: Item,
    /// How many more errors are kept of what the chunk's batches are settled as; fewer below zero.
    pub(crate) errors: i128,
}

impl Expression {
    /// The update for attempts that are news to the chunk, which was seen like this, if it was. If it is born by
    /// that, it expires then.
    pub(crate) fn new(
        id: JobId,
        news: &[(&Attempt<'_>, Effect)],
        seen: Option<&Chunk>,
        look: Look,
        at: Timestamp,
        expires: Timestamp,
    ) -> Self {
        let mut parts = Parts::default();
        for (attempt, effect) in news {
            parts.add(id, attempt, *effect, seen, at);
        }
        let Parts {
            counted,
            failed,
            corrected,
            replaced,
            sums,
            conditions,
            more_sets,
            removes,
            mut values,
            ..
        } = parts;
        let errors = sums.get("en").copied().unwrap_or_default();
        values.extend(layout::chunk_birth(expires));
        values.insert(":last".into(), layout::number(parts_last(news)));

        let mut sets = layout::CHUNK_BIRTH.to_owned();
        for set in more_sets {
            sets += &format!(", {set}");
        }
        let mut conditions = conditions;
        conditions.push(layout::CHUNK_IS_OURS.into());
        match look {
            Look::Spared => conditions.push("attribute_exists(k)".into()),
            Look::AtChunk => {
                conditions.push("attribute_exists(pk)".into());
                sets += ", k = :k";
                values.insert(":k".into(), layout::number(1));
            }
            Look::Before => {}
        }
        if seen.and_then(|chunk| chunk.facts.last_at).is_none_or(|last| last <= clock::after(at, OVERTAKING))
        {
            sets += ", l = :l";
            conditions.push("(attribute_not_exists(l) OR l <= :late)".into());
            values.insert(":l".into(), layout::millis(at));
            values.insert(":late".into(), layout::millis(clock::after(at, OVERTAKING)));
        }
        // A compacted chunk has room for none: all its batches have settled.
        let compacted = seen.is_some_and(|chunk| chunk.compacted);
        let room =
            if compacted { "attribute_exists(z)" } else { "(attribute_not_exists(cap) OR cap > :last)" };
        conditions.push(room.into());
        if compacted {
            values.remove(":last");
        }

        let mut adds = Vec::new();
        for (name, set) in [("c", counted), ("f", failed), ("r", replaced)] {
            if !set.is_empty() {
                adds.push(format!("{name} :{name}"));
                values.insert(format!(":{name}"), AttributeValue::Ss(set));
            }
        }
        for (name, value) in sums.into_iter().filter(|(_, value)| *value != 0) {
            adds.push(format!("{name} :{name}"));
            values.insert(format!(":{name}"), layout::number(value));
        }
        let mut update = format!("SET {sets} REMOVE {}", removes.join(", "));
        if !adds.is_empty() {
            update += &format!(" ADD {}", adds.join(", "));
        }
        if !corrected.is_empty() {
            update += " DELETE f :corrected";
            values.insert(":corrected".into(), AttributeValue::Ss(corrected));
        }
        Self { update, condition: conditions.join(" AND "), values, errors }
    }
}

/// The highest place of the attempts in their chunk.
fn parts_last(news: &[(&Attempt<'_>, Effect)]) -> u64 {
    news.iter().map(|(attempt, _)| chunks::place_of(attempt.report.batch())).max().unwrap_or(0)
}

#[derive(Default)]
struct Parts {
    counted: Vec<String>,
    failed: Vec<String>,
    corrected: Vec<String>,
    /// The corrected ones of which it is not known what they failed with.
    replaced: Vec<String>,
    /// What has been taken back for those.
    taken_back: u64,
    /// What is added to each number.
    sums: BTreeMap<&'static str, i128>,
    conditions: Vec<String>,
    more_sets: Vec<String>,
    removes: Vec<String>,
    values: Item,
}

impl Parts {
    fn add(&mut self, id: JobId, attempt: &Attempt<'_>, effect: Effect, seen: Option<&Chunk>, at: Timestamp) {
        let report: &BatchReport = &attempt.report;
        let place = chunks::place_of(report.batch());
        let value = format!(":b{}", self.conditions.len());
        let errors = if attempt.listed > 0 { report.errors().len() as u64 } else { 0 };
        *self.sums.entry("en").or_default() += i128::from(errors);
        if effect == Effect::Corrected {
            self.conditions.push(format!("contains(f, {value})"));
            self.corrected.push(place.to_string());
            self.take_back(report, place, seen);
        } else {
            self.conditions.push(format!("NOT contains(c, {value})"));
            self.counted.push(place.to_string());
            if report.settles_as() == Settled::Failed {
                self.failed.push(place.to_string());
                let with = FailedWith { items: report.items(), errors };
                self.more_sets.push(format!("x{place} = :x{place}"));
                self.values.insert(format!(":x{place}"), with.encode());
            }
        }
        self.values.insert(value, AttributeValue::S(place.to_string()));
        self.removes.push(format!("s{place}"));
        self.count(report);
        for (sum, value) in Moments::of(id, report, at).values() {
            *self.sums.entry(sum.name()).or_default() += value;
        }
        // Which errors are listed follows the attempt that counts: what guards the count guards it, too.
        let replaced = match seen {
            Some(chunk) if effect == Effect::Corrected => chunk.listed(report.batch()),
            _ => 0,
        };
        let listed = i128::from(attempt.listed) - i128::from(replaced);
        let name = LISTED[usize::try_from(place / PLACES_IN_NUMBER).unwrap_or(0)];
        *self.sums.entry(name).or_default() += listed << (2 * (place % PLACES_IN_NUMBER));
    }

    /// Takes back what the failure of a batch counted: exactly that. An earlier release added its items to
    /// those of completed batches, and did not say how many they were: then they are as many as now.
    fn take_back(&mut self, report: &BatchReport, place: u64, seen: Option<&Chunk>) {
        match seen.and_then(|chunk| chunk.failed_with(report.batch())) {
            Some(with) => {
                self.removes.push(format!("x{place}"));
                *self.sums.entry("en").or_default() -= i128::from(with.errors);
            }
            None => {
                let there = seen.map_or(0, |chunk| chunk.single_items_failed);
                let taken = report.items().min(there.saturating_sub(self.taken_back));
                self.taken_back += taken;
                *self.sums.entry("ix").or_default() -= i128::from(taken);
                self.replaced.push(place.to_string());
            }
        }
    }

    /// Items of a failed batch are no sum: they go when it completes.
    fn count(&mut self, report: &BatchReport) {
        if let BatchOutcome::Completed { processed, failed } = report.outcome() {
            *self.sums.entry("ip").or_default() += i128::from(processed);
            *self.sums.entry("ix").or_default() += i128::from(failed);
        }
    }
}
