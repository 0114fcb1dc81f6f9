//! Text for terminals: what users typed must not steer them.

use std::time::Duration;

use status_core::BatchIndex;

/// Whether a terminal might act on the character, or show the text around it in another order.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text in one line, with a space for each character that steers.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// JSON with an escape for each character that steers; JSON itself escapes some of them only. They
/// stand in strings alone, except for the line breaks between values.
pub(crate) fn json_escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && steers(c) {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// How long ago, in the largest unit that fits: "3h".
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Sorted numbers as people write them: "1, 4, 7-12".
pub(crate) fn ranges(batches: &[BatchIndex]) -> String {
    let consecutive = |a: &BatchIndex, b: &BatchIndex| a.get() + 1 == b.get();
    let parts = batches.chunk_by(consecutive).map(|part| match part {
        [first, .., last] if part.len() > 2 => format!("{first}-{last}"),
        _ => part.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// The number with its noun: "1 batch", "2 batches".
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The text in at most `width` columns, with a mark where it was cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    let cut: String = text
        .chars()
        .take_while({
            let mut fits = fits;
            move |c| fits(c)
        })
        .collect();
    if width == 0 { cut } else { cut.trim_end().to_owned() + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let nasty = "a\x1b[31m\u{9b}2J\u{7f}\r\n\tb\u{202e}c\u{2066}";
        for text in [printable(nasty), json_escaped(&serde_json::to_string(nasty).expect("JSON"))] {
            assert!(!text.chars().any(steers), "{text:?}");
        }
        let json = json_escaped(&serde_json::to_string(nasty).expect("JSON"));
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), nasty, "the value is the same");
        assert_eq!(printable("Zoë 日本 €"), "Zoë 日本 €");
    }

    #[test]
    fn numbers_are_shown_as_ranges() {
        let ranges = |numbers: &[u64]| {
            let batches: Vec<_> = numbers.iter().map(|n| BatchIndex::new(*n).expect("small")).collect();
            super::ranges(&batches)
        };
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[1, 4]), "1, 4");
        assert_eq!(ranges(&[0, 1, 3, 4, 5, 9]), "0, 1, 3-5, 9");
    }

    #[test]
    fn texts_are_cut_by_what_they_take_on_the_screen() {
        assert_eq!(cut("leads.csv", 9), "leads.csv");
        assert_eq!(cut("leads.csv", 8), "leads.c…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn ages_are_short() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(61), of(7_200), of(90_000)], ["0s", "59s", "1m", "2h", "1d"]);
    }
}
