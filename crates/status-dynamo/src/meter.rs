//! What requests cost, by the server's own account.

use std::sync::{Mutex, PoisonError};

use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};

use crate::{
    DynamoStore,
    layout::{self, Item},
};

/// Adds up what a store's requests consume.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Usage>);

/// What requests consumed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// Requests, refused ones included.
    pub requests: u64,
    /// Conditional writes that were refused.
    pub refused: u64,
    /// What AWS bills for them, by the size of the item that was there: the server does not say.
    pub refused_units: f64,
    /// Write units of writes that happened.
    pub write_units: f64,
    /// Read units.
    pub read_units: f64,
}

impl Meter {
    /// What was consumed so far.
    pub fn usage(&self) -> Usage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, add: impl FnOnce(&mut Usage)) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        usage.requests += 1;
        add(&mut usage);
    }
}

impl DynamoStore {
    pub(crate) fn metered(&self) -> Option<ReturnConsumedCapacity> {
        self.meter.as_ref().map(|_| ReturnConsumedCapacity::Total)
    }

    pub(crate) fn metered_write(&self, capacity: Option<&ConsumedCapacity>) {
        let Some(meter) = &self.meter else { return };
        meter.add(|usage| usage.write_units += units(capacity));
    }

    pub(crate) fn metered_read(&self, capacity: Option<&ConsumedCapacity>) {
        let Some(meter) = &self.meter else { return };
        meter.add(|usage| usage.read_units += units(capacity));
    }

    pub(crate) fn metered_refusal(&self, there: Option<&Item>) {
        let Some(meter) = &self.meter else { return };
        let kilobytes = there.map_or(1, |item| layout::size_of(item).div_ceil(1_024)).max(1);
        meter.add(|usage| {
            usage.refused += 1;
            #[expect(clippy::cast_precision_loss, reason = "an item has at most 400 KB")]
            let units = kilobytes as f64;
            usage.refused_units += units;
        });
    }
}

fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0)
}
