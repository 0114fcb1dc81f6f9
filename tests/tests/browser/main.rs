//! What people see, in real Chromium. `CHROMEDRIVER_URL` says where chromedriver listens, `AXE` where axe-core's script is:
//! `cargo xtask test` does both. Screenshots of every state go to `target/screenshots`.
#![cfg(feature = "browser")]

mod component;
mod driver;
mod journeys;
mod stage;
mod states;
