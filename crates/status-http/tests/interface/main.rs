//! The interface over one memory: what a client is told, and what it is never told.

mod callers;
mod jobs;
mod seen;
mod support;
