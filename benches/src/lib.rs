//! What it costs and how well it estimates, measured: see the programs `dynamo-cost` and `eta-replay`.
