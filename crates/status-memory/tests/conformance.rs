//! The memory store keeps the contract.

use std::sync::Arc;

use status_memory::MemoryStore;

status_testkit::conformance!(async |clock| Arc::new(MemoryStore::new(1_000, clock)));
