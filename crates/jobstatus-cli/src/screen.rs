//! A job in a terminal, drawn anew at each change of the job or of the terminal's size.
//!
//! It has the terminal's other screen to itself, as pagers have. A progress line among other lines
//! cannot be drawn cleanly when the width changes: some terminals wrap what is too long by then, others
//! cut it, and none says which.

use std::io::{self, Stdout, Write, stdout};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
        LeaveAlternateScreen,
    },
};
use status_core::{Health, Snapshot, Status};

use crate::{
    output::label,
    text::{cut, printable},
};

/// The widest bar.
const WIDEST: usize = 100;

/// The terminal's other screen; the first one comes back when this is dropped.
pub(crate) struct Screen {
    out: Stdout,
    job: Option<Snapshot>,
    said: Option<String>,
    size: (u16, u16),
}

impl Screen {
    pub(crate) fn open() -> io::Result<Self> {
        let mut screen = Self { out: stdout(), job: None, said: None, size: size() };
        queue!(screen.out, EnterAlternateScreen, Hide)?;
        screen.out.flush()?;
        Ok(screen)
    }

    pub(crate) fn show(&mut self, job: &Snapshot) -> io::Result<()> {
        if self.job.as_ref() == Some(job) {
            return Ok(());
        }
        self.job = Some(job.clone());
        self.draw()
    }

    pub(crate) fn say(&mut self, what: Option<&str>) -> io::Result<()> {
        self.said = what.map(str::to_owned);
        self.draw()
    }

    /// Draws again if the terminal has another size by now.
    pub(crate) fn fit(&mut self) -> io::Result<()> {
        let size = size();
        if size == self.size { Ok(()) } else { self.draw() }
    }

    fn draw(&mut self) -> io::Result<()> {
        let Some(job) = &self.job else { return Ok(()) };
        self.size = size();
        let (width, height) = (usize::from(self.size.0), usize::from(self.size.1));
        let lines = lines(job, self.said.as_deref(), width);
        queue!(self.out, BeginSynchronizedUpdate, MoveTo(0, 0), Clear(ClearType::FromCursorDown))?;
        for (place, line) in (0..).zip(lines.iter().take(height)) {
            let attribute = if place == 0 { Attribute::Bold } else { Attribute::Reset };
            queue!(self.out, MoveTo(0, place), SetAttribute(attribute), Print(line))?;
        }
        queue!(self.out, SetAttribute(Attribute::Reset), EndSynchronizedUpdate)?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There may be no terminal any more.
        let _ = queue!(self.out, Show, LeaveAlternateScreen);
        let _ = self.out.flush();
    }
}

fn size() -> (u16, u16) {
    terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0).unwrap_or((80, 24))
}

/// The job in lines of at most `width` columns.
fn lines(job: &Snapshot, said: Option<&str>, width: usize) -> Vec<String> {
    let (batches, items) = (&job.progress.batches, &job.progress.items);
    let of = |total: Option<u64>| total.map(|total| format!(" of {total}")).unwrap_or_default();
    let failed = |failed: u64| if failed > 0 { format!(", {failed} failed") } else { String::new() };
    let mut lines = vec![printable(&job.title), label(job)];
    if job.status == Status::Uploading {
        let upload = job.progress.upload;
        lines.push(bar(share(upload.bytes, upload.total), width));
    } else {
        lines.push(bar(job.progress.fraction, width));
    }
    let settled = batches.completed + batches.failed;
    lines.push(format!("{settled}{} batches{}", of(batches.total), failed(batches.failed)));
    let noun = job.noun().to_lowercase();
    lines.push(printable(&format!("{}{} {noun}{}", items.processed, of(items.total), failed(items.failed))));
    if let Some(stage) = job.stage.as_ref().filter(|_| !job.status.is_terminal()) {
        lines.push(printable(stage));
    }
    if job.health == Health::Stalled {
        lines.push("stalled: nothing has been heard of it lately".to_owned());
    } else if let Some(estimate) = &job.estimate {
        lines.push(printable(&estimate.text));
    }
    lines.push(said.map(printable).unwrap_or_default());
    lines.push(job.id.to_string());
    lines.iter().map(|line| cut(line, width)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn share(part: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| part as f64 / total as f64)
}

/// "██████░░░░  60%"; without a share, as long as nobody knows the total, only the frame.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 to 100"
)]
fn bar(share: Option<f64>, width: usize) -> String {
    let share = share.map(|share| share.clamp(0.0, 1.0));
    let percent = share.map_or("   ?".to_owned(), |share| format!("{:3.0}%", (share * 100.0).floor()));
    let room = width.min(WIDEST).saturating_sub(percent.len() + 1);
    let full = share.map_or(0, |share| (share * room as f64) as usize).min(room);
    format!("{}{} {percent}", "█".repeat(full), "░".repeat(room - full))
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn the_bar_fills_the_width_and_is_full_at_the_end_only() {
        for width in [10, 40, 80] {
            for share in [None, Some(0.0), Some(0.5), Some(0.999), Some(1.0)] {
                let bar = bar(share, width);
                assert_eq!(bar.width(), width, "{bar}");
                assert_eq!(!bar.contains('░'), share == Some(1.0), "{bar}");
            }
        }
        assert_eq!(bar(Some(0.5), 15), "█████░░░░░  50%");
        assert!(bar(Some(0.999), 80).ends_with(" 99%"));
    }
}
