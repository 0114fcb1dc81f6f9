//! A third backend, as somebody else would write one, keeps the contract: this is all it takes.

mod plain_store;

use std::sync::Arc;

use plain_store::{Place, PlainStore};

status_testkit::conformance!(
    shared: async || Place::default(),
    async |place, clock| Arc::new(PlainStore::new(place, clock))
);
