//! What happened in a run, step by step, for people to read.

use std::{
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::time::VirtualTime;

/// How much of a run is written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// Only how many steps there were: for runs by the thousand.
    Steps,
    /// Every step.
    Lines,
}

/// The steps of one run. Their numbers are the same whatever the detail.
#[derive(Debug)]
pub struct History {
    detail: Detail,
    time: VirtualTime,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    steps: u64,
    lines: Vec<String>,
    /// Long ids and what they are called here.
    names: Vec<(String, String)>,
}

impl History {
    /// The history of a run that begins now.
    pub fn new(detail: Detail, time: VirtualTime) -> Self {
        Self { detail, time, inner: Mutex::default() }
    }

    /// Adds a step, and gives its number.
    pub fn note(&self, who: &str, what: impl FnOnce() -> String) -> u64 {
        let line = (self.detail == Detail::Lines).then(what).map(|what| self.named(&what));
        let mut inner = self.inner();
        inner.steps += 1;
        let step = inner.steps;
        if let Some(line) = line {
            let at = self.time.elapsed().as_secs_f64();
            inner.lines.push(format!("{step:>6} {at:>12.3} s  {who:<12} {line}"));
        }
        step
    }

    /// From now on this id is shown by a short name.
    pub fn name(&self, id: String, name: String) {
        let mut inner = self.inner();
        if inner.names.iter().all(|(known, _)| *known != id) {
            inner.names.push((id, name));
        }
    }

    /// The text with short names instead of ids.
    pub fn named(&self, text: &str) -> String {
        self.inner().names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }

    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.inner().steps
    }

    /// All steps, a line each; none where only steps are counted.
    pub fn lines(&self) -> Vec<String> {
        self.inner().lines.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a long text.
pub fn brief(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => {
            let mut brief = text[..end].to_owned();
            let _ = write!(brief, "… ({} bytes)", text.len());
            brief
        }
    }
}
