//! A chunk: 256 batches of a job as one item, read.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{
    BatchIndex, Facts, JobId, Settled, Status, StoreError, Sum, Timestamp,
    chunk::{self, Places, Settlements},
    clock,
};

use crate::layout::{self, CHUNK, Item, attribute};

/// The numbers that say for each batch which attempt's errors are listed: two bits a batch.
pub(crate) const LISTED: [&str; 6] = ["e0", "e1", "e2", "e3", "e4", "e5"];
/// Batches in one of them: DynamoDB's numbers have 38 digits, and 2 · 43 bits are 26.
pub(crate) const PLACES_IN_NUMBER: u64 = 43;
/// Attempts at one batch, settled one way, whose errors can be kept.
pub(crate) const ATTEMPTS: u8 = 3;

/// What a batch failed with: what a correction takes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FailedWith {
    /// Its items.
    pub(crate) items: u64,
    /// How many errors were kept for it.
    pub(crate) errors: u64,
}

impl FailedWith {
    pub(crate) fn encode(self) -> AttributeValue {
        AttributeValue::S(format!("{} {}", self.items, self.errors))
    }

    fn decode(value: &AttributeValue) -> Option<Self> {
        let (items, errors) = value.as_s().ok()?.split_once(' ')?;
        Some(Self { items: items.parse().ok()?, errors: errors.parse().ok()? })
    }
}

/// What is known of 256 batches.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) number: u64,
    pub(crate) facts: Facts,
    /// The chunk's size, if it has been told.
    pub(crate) capacity: Option<u64>,
    /// Whether somebody has looked, since it exists, that the job has it.
    pub(crate) checked: bool,
    /// Whether the set of completed batches was dropped.
    pub(crate) compacted: bool,
    /// The status of the job, if it is terminal and the chunk has been told.
    pub(crate) over: Option<Status>,
    /// How many errors are kept of what its batches are settled as.
    pub(crate) errors: u64,
    /// Failed items of completed batches; where an earlier release counted, of failed ones, too.
    pub(crate) single_items_failed: u64,
    /// When the chunk expires, in seconds.
    pub(crate) expires: Option<i64>,
    settlements: Settlements,
    /// For each place the attempt whose errors are listed, from 1; 0 is none.
    listed: [u8; CHUNK as usize],
    /// What the failed batches failed with, by place; an earlier release did not say.
    failed_with: BTreeMap<u64, FailedWith>,
    /// The batches whose errors, if release 0.1 wrote some, were those of a failure that is corrected.
    replaced: Places,
}

impl Chunk {
    /// Reads a chunk. What a batch past its end did to it is set aside by [`Chunk::facts_of`].
    pub(crate) fn decode(id: JobId, item: &Item) -> Result<Self, StoreError> {
        let sk = attribute::text(item, layout::SK).unwrap_or_default();
        let corrupt =
            |why: &str| StoreError::Corrupt { subject: format!("{sk} of job {id}"), why: why.to_owned() };
        let number = layout::chunk_in(sk).ok_or_else(|| corrupt("it is neither a head nor a chunk"))?;
        match attribute::number::<u64>(item, "sv") {
            Some(layout::SCHEMA) => {}
            Some(_) => return Err(corrupt(layout::NEWER)),
            None => return Err(corrupt("it has no layout version (sv)")),
        }
        let count = |name: &str| match item.get(name) {
            None => Ok(0),
            Some(value) => {
                // Under an earlier release, reports of one batch that disagreed about its items left a sum
                // below zero.
                let count = value.as_n().ok().and_then(|n| attribute::whole(n));
                let count = count.and_then(|n| u64::try_from(n.max(0)).ok());
                count.ok_or_else(|| corrupt(&format!("{name} is no count")))
            }
        };
        let failed = places(item.get("f")).ok_or_else(|| corrupt("f is no set of batches"))?;
        let (checked, compacted) = (item.contains_key("k"), item.contains_key("z"));
        let settled = if compacted {
            Places::first(count("z")?)
        } else {
            places(item.get("c")).ok_or_else(|| corrupt("c is no set of batches"))?
        };
        let mut facts = Facts::default();
        facts.counts.completed = settled.without(failed).count();
        facts.counts.failed = failed.count();
        facts.counts.items_processed = count("ip")?;
        let single_items_failed = count("ix")?;
        let failed_with =
            failed_with(item).ok_or_else(|| corrupt("what a batch failed with cannot be read"))?;
        // What is not among the failed was corrected by an earlier release.
        let of_failed = failed_with.iter().filter(|(place, _)| failed.has(**place));
        facts.counts.items_failed =
            of_failed.fold(single_items_failed, |sum, (_, with)| sum.saturating_add(with.items));
        let replaced = places(item.get("r")).ok_or_else(|| corrupt("r is no set of batches"))?;
        for sum in Sum::ALL {
            if let Some(value) = item.get(sum.name()) {
                let whole = value.as_n().ok().and_then(|n| attribute::whole(n));
                let why = || corrupt(&format!("the sum {} is no whole number: {value:?}", sum.name()));
                facts.moments.set(*sum, whole.ok_or_else(why)?);
            }
        }
        let at = |ms: i64| Timestamp::from_millisecond(ms).map_err(|_| corrupt("a time is out of range"));
        facts.last_at = attribute::number(item, "l").map(at).transpose()?;
        facts.highest = settled
            .highest()
            .map(|index| BatchIndex::new(number * CHUNK + index))
            .transpose()
            .map_err(|_| corrupt("it is past the last batch a job may have"))?;
        let started = |(name, value): (&String, &AttributeValue)| {
            let index: u64 = name.strip_prefix('s')?.parse().ok()?;
            let since: u64 = value.as_n().ok()?.parse().ok()?;
            // A start that came after its batch had settled says nothing.
            (!settled.has(index))
                .then(|| clock::after(id.created_at(), std::time::Duration::from_millis(since)))
        };
        facts.running = item.iter().filter_map(started).collect();
        facts.running.sort_unstable();
        let capacity = attribute::number(item, "cap").filter(|_| !compacted);
        let over = attribute::text(item, "st").and_then(|status| status.parse().ok());
        let listed = listed(item).ok_or_else(|| corrupt("what says which errors are listed is no number"))?;
        let (errors, settlements) = (count("en")?, Settlements { settled, failed });
        let expires = attribute::number(item, layout::TTL);
        Ok(Self {
            number,
            facts,
            capacity,
            checked,
            compacted,
            over,
            errors,
            single_items_failed,
            expires,
            settlements,
            listed,
            failed_with,
            replaced,
        })
    }

    /// Its facts in a job with this total: batches at or past it are set aside.
    pub(crate) fn facts_of(&self, total: Option<u64>) -> Facts {
        let mut facts = self.facts.clone();
        if let Some(total) = total {
            let (_, stray) = self.settlements.split_at(chunk::size_of(self.number, total));
            facts.set_aside(stray.completed, stray.failed);
        }
        facts
    }

    pub(crate) fn settled(&self, batch: BatchIndex) -> Option<Settled> {
        self.settlements.get(chunk::place_of(batch))
    }

    /// The attempt whose errors are listed for the batch, from 1; 0 is none.
    pub(crate) fn listed(&self, batch: BatchIndex) -> u8 {
        usize::try_from(chunk::place_of(batch)).map_or(0, |place| self.listed[place])
    }

    /// What the batch failed with, if it stands as failed and whoever counted it said so.
    pub(crate) fn failed_with(&self, batch: BatchIndex) -> Option<FailedWith> {
        let place = chunk::place_of(batch);
        self.failed_with.get(&place).copied().filter(|_| self.settlements.failed.has(place))
    }

    /// Whether errors that release 0.1 wrote of the batch are those of a failure that is corrected.
    pub(crate) fn is_replaced(&self, batch: BatchIndex) -> bool {
        self.replaced.has(chunk::place_of(batch))
    }

    /// Whether all its batches are settled, as far as it knows its size, or the total does.
    pub(crate) fn is_full(&self, total: Option<u64>) -> bool {
        let size = total.map(|total| chunk::size_of(self.number, total)).or(self.capacity).unwrap_or(CHUNK);
        let (counts, _) = self.settlements.split_at(size);
        counts.settled() >= size
    }
}

/// The places in a set of numbers; none if there is no set, `None` if it is something else.
fn places(set: Option<&AttributeValue>) -> Option<Places> {
    let Some(set) = set else { return Some(Places::default()) };
    let places = set.as_ss().ok()?.iter().map(|place| place.parse().ok().filter(|place| *place < CHUNK));
    places.collect()
}

/// What the batches failed with, by place; `None` if it is something else.
fn failed_with(item: &Item) -> Option<BTreeMap<u64, FailedWith>> {
    let place = |name: &str| name.strip_prefix('x')?.parse().ok().filter(|place| *place < CHUNK);
    let of_places = item.iter().filter_map(|(name, value)| Some((place(name)?, value)));
    of_places.map(|(place, value)| Some((place, FailedWith::decode(value)?))).collect()
}

/// For each place the attempt whose errors are listed; `None` if the numbers are none.
fn listed(item: &Item) -> Option<[u8; CHUNK as usize]> {
    let mut listed = [0; CHUNK as usize];
    for (places, name) in listed.chunks_mut(PLACES_IN_NUMBER as usize).zip(LISTED) {
        let Some(value) = item.get(name) else { continue };
        let mut bits = u128::try_from(attribute::whole(value.as_n().ok()?)?).ok()?;
        for place in places {
            *place = (bits & 3) as u8;
            bits >>= 2;
        }
    }
    Some(listed)
}
