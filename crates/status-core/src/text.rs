//! Text that came from outside: bounded, printable, and still only text.

/// Text that was refused, with the field, the reason and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct InvalidText {
    /// The field that was refused.
    pub field: &'static str,
    /// What is wrong with it, as the end of a sentence that begins with the field.
    pub why: String,
}

/// `text` as it is, if it has 1 to `max` bytes and no control characters.
///
/// # Errors
/// [`InvalidText`] that names the field and the bound.
pub fn checked(field: &'static str, text: String, max: usize) -> Result<String, InvalidText> {
    let why = if text.trim().is_empty() {
        "must not be empty".to_owned()
    } else if text.len() > max {
        format!("has {} bytes; at most {max} are accepted", text.len())
    } else if text.chars().any(char::is_control) {
        "must not contain control characters".to_owned()
    } else {
        return Ok(text);
    };
    Err(InvalidText { field, why })
}

/// `text` cut to at most `max` bytes at a character's edge, control characters turned into spaces.
///
/// ```
/// # use status_core::text::bounded;
/// assert_eq!(bounded("what\nhappened", 64), "what happened");
/// assert_eq!(bounded("naïve", 3), "na…".get(..2).unwrap_or_default());
/// assert_eq!(bounded("a long message", 9), "a long…");
/// ```
pub fn bounded(text: &str, max: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if text.len() <= max {
        return text.chars().map(clean).collect();
    }
    let ellipsis = if max >= 8 { "…" } else { "" };
    let room = max - ellipsis.len();
    let mut cut: String = text
        .chars()
        .map(clean)
        .scan(0, |used, c| {
            *used += c.len_utf8();
            (*used <= room).then_some(c)
        })
        .collect();
    cut.truncate(cut.trim_end().len());
    cut + ellipsis
}
