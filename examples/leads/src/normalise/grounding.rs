//! Whether what a language model says of a row may be believed: only what stands in that very row, and nothing against what
//! the rules know for certain. Text in one row can so neither add to another row's lead nor change it, whatever the model
//! was talked into.

use std::collections::HashSet;

use super::rules;
use crate::{Field, Lead, RawLead};

/// The fields a model is asked for. The remarks are the rest of the row, put together here.
pub(super) const ASKED: [Field; 6] =
    [Field::FirstName, Field::LastName, Field::Title, Field::Company, Field::Email, Field::Phone];

/// The lead that `answer` makes of `row`; `None` if it says what the row does not.
pub(super) fn grounded(row: &RawLead, mut answer: Lead) -> Option<Lead> {
    let known = rules::known(row);
    // What the rules are certain of is not to be talked away.
    for field in ASKED {
        if answer.get(field).trim().is_empty() && !is_name(field) {
            known.get(field).clone_into(answer.get_mut(field));
        }
    }
    if answer.first_name.trim().is_empty() && answer.last_name.trim().is_empty() {
        answer.first_name.clone_from(&known.first_name);
        answer.last_name.clone_from(&known.last_name);
    }
    (stands_in(row, &answer) && agrees(&known, &answer)).then(|| with_remarks(row, answer))
}

fn is_name(field: Field) -> bool {
    matches!(field, Field::FirstName | Field::LastName)
}

fn stands_in(row: &RawLead, answer: &Lead) -> bool {
    let row_words: HashSet<String> = row.iter().flat_map(|(_, value)| words(value)).collect();
    ASKED.into_iter().all(|field| {
        let text = answer.get(field).trim();
        match field {
            _ if text.is_empty() => true,
            Field::Email => {
                let address = text.to_lowercase();
                row.iter().any(|(_, value)| addresses(value).any(|stands| stands == address))
            }
            Field::Phone => {
                let number = digits(text);
                !number.is_empty() && row.iter().any(|(_, value)| digits(value).contains(&number))
            }
            _ => words(text).all(|word| row_words.contains(&word)),
        }
    })
}

fn agrees(known: &Lead, answer: &Lead) -> bool {
    let names = |lead: &Lead| format!("{} {}", lead.first_name, lead.last_name);
    same_or_unknown(&known.email, &answer.email, |text| text.trim().to_lowercase())
        && same_or_unknown(&known.phone, &answer.phone, digits)
        && shares_a_word(&known.company, &answer.company)
        && shares_a_word(&names(known), &names(answer))
}

fn same_or_unknown(known: &str, answer: &str, essence: impl Fn(&str) -> String) -> bool {
    let known = essence(known);
    known.is_empty() || known == essence(answer)
}

fn shares_a_word(known: &str, answer: &str) -> bool {
    let answered: HashSet<String> = words(answer).collect();
    let mut known = words(known).peekable();
    known.peek().is_none() || known.any(|word| answered.contains(&word))
}

/// The lead with all of the row in its remarks that its fields do not say.
fn with_remarks(row: &RawLead, mut lead: Lead) -> Lead {
    let said: HashSet<String> = ASKED.into_iter().flat_map(|field| words(lead.get(field))).collect();
    let number = digits(&lead.phone);
    let is_the_number = |value: &str| !number.is_empty() && digits(value) == number;
    let unsaid = |value: &str| words(value).any(|word| !said.contains(&word)) && !is_the_number(value);
    let rest = row.iter().map(|(column, value)| (column, value.trim()));
    lead.remarks = rules::remarks(rest.filter(|(_, value)| unsaid(value)));
    lead.tidied()
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn addresses(text: &str) -> impl Iterator<Item = String> {
    let ends = |c: char| c.is_whitespace() || ",;<>()[]\"'".contains(c);
    text.split(ends).map(|word| word.trim_start_matches("mailto:").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> RawLead {
        RawLead::from_pairs([
            ("Contact", "dr. ADA lovelace"),
            ("Firm", "Analytical Engines Ltd."),
            ("E-Mail", "Ada@Example.com"),
            ("Phone", "+44 20 7946-0000"),
            ("Notes", "met in London; assistant: charles@example.com"),
        ])
    }

    fn answer(pairs: &[(Field, &str)]) -> Option<Lead> {
        let mut lead = Lead::default();
        for (field, text) in pairs {
            (*text).clone_into(lead.get_mut(*field));
        }
        grounded(&row(), lead)
    }

    #[test]
    fn what_stands_in_the_row_is_believed_and_the_rest_of_it_is_kept() {
        let lead = answer(&[
            (Field::FirstName, "Ada"),
            (Field::LastName, "Lovelace"),
            (Field::Title, "Dr."),
            (Field::Company, "Analytical Engines"),
            (Field::Email, "ada@example.com"),
            (Field::Phone, "+442079460000"),
        ])
        .expect("grounded");
        assert_eq!((lead.first_name.as_str(), lead.last_name.as_str()), ("Ada", "Lovelace"));
        assert_eq!(
            lead.remarks,
            "met in London; assistant: charles@example.com; Firm: Analytical Engines Ltd."
        );
    }

    #[test]
    fn what_does_not_stand_in_the_row_is_not_believed() {
        for invented in [
            (Field::Email, "evil@example.com"),
            (Field::Email, "a@example.com"),
            (Field::Phone, "+49 171 1234567"),
            (Field::Phone, "call me"),
            (Field::Company, "Evil Corp"),
            (Field::FirstName, "Grace"),
        ] {
            assert_eq!(answer(&[invented]), None, "{invented:?}");
        }
    }

    #[test]
    fn what_the_rules_know_for_certain_stays() {
        // Another address of the same row would make it another lead.
        assert_eq!(answer(&[(Field::Email, "charles@example.com")]), None);
        assert_eq!(answer(&[(Field::FirstName, "Charles"), (Field::LastName, "London")]), None);
        let emptied = answer(&[]).expect("grounded");
        assert_eq!((emptied.email.as_str(), emptied.last_name.as_str()), ("ada@example.com", "lovelace"));
    }
}
