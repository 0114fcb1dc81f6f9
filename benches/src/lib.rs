//! What it costs and how well it estimates, measured: see the programs `store-cost`, `dynamo-cost`
//! and `eta-replay`.

pub mod dynamodb;
