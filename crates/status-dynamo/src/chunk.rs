//! A chunk: 256 batches of a job as one item, read.

use aws_sdk_dynamodb::types::AttributeValue;
use status_core::{BatchIndex, Facts, JobId, Settled, Status, StoreError, Sum, Timestamp, clock};

use crate::layout::{self, CHUNK, Item, attribute};

/// What is known of 256 batches.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) number: u64,
    pub(crate) facts: Facts,
    /// The chunk's size, if it has been told.
    pub(crate) capacity: Option<u64>,
    /// Whether the set of completed batches was dropped.
    pub(crate) compacted: bool,
    /// The status of the job, if it is terminal and the chunk has been told.
    pub(crate) over: Option<Status>,
    settled: Bits,
    failed: Bits,
}

impl Chunk {
    pub(crate) fn decode(id: JobId, item: &Item) -> Result<Self, StoreError> {
        let sk = attribute::text(item, layout::SK).unwrap_or_default();
        let corrupt =
            |why: &str| StoreError::Corrupt { subject: format!("{sk} of job {id}"), why: why.to_owned() };
        let number: u64 = sk
            .strip_prefix(layout::CHUNK_PREFIX)
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| corrupt("it is neither a head nor a chunk"))?;
        match attribute::number::<u64>(item, "sv") {
            Some(layout::SCHEMA) => {}
            Some(_) => return Err(corrupt("it was written by a newer version; update this program")),
            None => return Err(corrupt("it has no layout version (sv)")),
        }
        let count = |name: &str| match item.get(name) {
            None => Ok(0),
            Some(value) => {
                let count =
                    value.as_n().ok().and_then(|n| attribute::whole(n)).and_then(|n| u64::try_from(n).ok());
                count.ok_or_else(|| corrupt(&format!("{name} is no count")))
            }
        };
        let failed = Bits::decode(item.get("f")).ok_or_else(|| corrupt("f is no set of batches"))?;
        let compacted = item.contains_key("z");
        let settled = if compacted {
            Bits::first(count("z")?)
        } else {
            Bits::decode(item.get("c")).ok_or_else(|| corrupt("c is no set of batches"))?
        };
        let mut facts = Facts::default();
        facts.counts.completed = settled.without(failed).count();
        facts.counts.failed = failed.count();
        facts.counts.items_processed = count("ip")?;
        facts.counts.items_failed = count("ix")?;
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
        Ok(Self { number, facts, capacity, compacted, over, settled, failed })
    }

    /// The first batch of the chunk.
    pub(crate) fn first(&self) -> u64 {
        self.number * CHUNK
    }

    pub(crate) fn settled(&self, batch: BatchIndex) -> Option<Settled> {
        let index = batch.get() % CHUNK;
        match (self.settled.has(index), self.failed.has(index)) {
            (true, false) => Some(Settled::Completed),
            (true, true) => Some(Settled::Failed),
            (false, _) => None,
        }
    }

    /// Whether all its batches are settled, as far as it knows its size, or the total does.
    pub(crate) fn is_full(&self, total: Option<u64>) -> bool {
        let of_total = total.map(|total| total.saturating_sub(self.first()).min(CHUNK));
        self.facts.counts.settled() >= of_total.or(self.capacity).unwrap_or(CHUNK)
    }
}

/// 256 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bits([u64; 4]);

impl Bits {
    /// The bits of a set of numbers; none if there is no set, `None` if it is something else.
    fn decode(set: Option<&AttributeValue>) -> Option<Self> {
        let mut bits = Self::default();
        for number in set.map_or(Some(&[][..]), |set| set.as_ss().ok().map(Vec::as_slice))? {
            let index: usize = number.parse().ok().filter(|index| *index < 256)?;
            bits.0[index / 64] |= 1 << (index % 64);
        }
        Some(bits)
    }

    fn first(count: u64) -> Self {
        let mut bits = Self::default();
        for index in 0..usize::try_from(count.min(CHUNK)).unwrap_or(0) {
            bits.0[index / 64] |= 1 << (index % 64);
        }
        bits
    }

    fn has(self, index: u64) -> bool {
        usize::try_from(index).is_ok_and(|i| i < 256 && self.0[i / 64] & (1 << (i % 64)) != 0)
    }

    fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    fn count(self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn highest(self) -> Option<u64> {
        (0..CHUNK).rev().find(|index| self.has(*index))
    }
}
