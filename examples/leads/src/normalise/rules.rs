//! Normalising by rules: columns are known by their names, in a few languages. No network, no key, the same result each time.

use std::time::Duration;

use async_trait::async_trait;

use super::{NormaliseError, Normalised, Normaliser};
use crate::{Field, Lead, RawLead};

/// The rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules;

#[async_trait]
impl Normaliser for Rules {
    async fn normalise(&self, rows: &[RawLead], _: Duration) -> Result<Vec<Normalised>, NormaliseError> {
        Ok(rows.iter().map(by_rules).collect())
    }
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Field(Field),
    FullName,
    Rest,
}

/// Names of columns, stripped to letters, and what they mean. The longest that fits wins.
const NAMES: &[(&str, Meaning)] = &[
    ("firstname", Meaning::Field(Field::FirstName)),
    ("givenname", Meaning::Field(Field::FirstName)),
    ("forename", Meaning::Field(Field::FirstName)),
    ("vorname", Meaning::Field(Field::FirstName)),
    ("prenom", Meaning::Field(Field::FirstName)),
    ("nombre", Meaning::Field(Field::FirstName)),
    ("lastname", Meaning::Field(Field::LastName)),
    ("familyname", Meaning::Field(Field::LastName)),
    ("surname", Meaning::Field(Field::LastName)),
    ("nachname", Meaning::Field(Field::LastName)),
    ("nom", Meaning::Field(Field::LastName)),
    ("apellido", Meaning::Field(Field::LastName)),
    ("apellidos", Meaning::Field(Field::LastName)),
    ("name", Meaning::FullName),
    ("fullname", Meaning::FullName),
    ("contact", Meaning::FullName),
    ("contactname", Meaning::FullName),
    ("leadname", Meaning::FullName),
    ("title", Meaning::Field(Field::Title)),
    ("jobtitle", Meaning::Field(Field::Title)),
    ("position", Meaning::Field(Field::Title)),
    ("role", Meaning::Field(Field::Title)),
    ("company", Meaning::Field(Field::Company)),
    ("companyname", Meaning::Field(Field::Company)),
    ("organization", Meaning::Field(Field::Company)),
    ("organisation", Meaning::Field(Field::Company)),
    ("accountname", Meaning::Field(Field::Company)),
    ("employer", Meaning::Field(Field::Company)),
    ("firma", Meaning::Field(Field::Company)),
    ("empresa", Meaning::Field(Field::Company)),
    ("entreprise", Meaning::Field(Field::Company)),
    ("email", Meaning::Field(Field::Email)),
    ("emailaddress", Meaning::Field(Field::Email)),
    ("mail", Meaning::Field(Field::Email)),
    ("workemail", Meaning::Field(Field::Email)),
    ("businessemail", Meaning::Field(Field::Email)),
    ("correo", Meaning::Field(Field::Email)),
    ("phone", Meaning::Field(Field::Phone)),
    ("phonenumber", Meaning::Field(Field::Phone)),
    ("telephone", Meaning::Field(Field::Phone)),
    ("tel", Meaning::Field(Field::Phone)),
    ("mobile", Meaning::Field(Field::Phone)),
    ("mobilephone", Meaning::Field(Field::Phone)),
    ("telefon", Meaning::Field(Field::Phone)),
    ("telefono", Meaning::Field(Field::Phone)),
    ("remarks", Meaning::Field(Field::Remarks)),
    ("notes", Meaning::Field(Field::Remarks)),
    ("note", Meaning::Field(Field::Remarks)),
    ("comment", Meaning::Field(Field::Remarks)),
    ("comments", Meaning::Field(Field::Remarks)),
    ("bemerkung", Meaning::Field(Field::Remarks)),
];

fn by_rules(row: &RawLead) -> Normalised {
    somebody(known(row))
}

/// The lead, if there is anybody to talk to.
pub(super) fn somebody(lead: Lead) -> Normalised {
    if lead.is_somebody() {
        Ok(lead)
    } else {
        Err("The row has no name, company, e-mail address or phone number.".into())
    }
}

/// What the rules know of the row.
pub(super) fn known(row: &RawLead) -> Lead {
    let mut lead = Lead::default();
    let mut rest = Vec::new();
    for (column, value) in row.iter().map(|(column, value)| (column, value.trim())) {
        match meaning(column) {
            _ if value.is_empty() => {}
            // The first address and the first number are the lead's; what else there is stays readable in the remarks.
            Meaning::Field(Field::Email) if !is_email(value) => rest.push((column, value)),
            Meaning::Field(Field::Remarks) => rest.push((column, value)),
            Meaning::Field(field) if lead.get(field).is_empty() => value.clone_into(lead.get_mut(field)),
            Meaning::FullName if lead.first_name.is_empty() && lead.last_name.is_empty() => {
                let (first, last) = split_name(value);
                first.clone_into(&mut lead.first_name);
                last.clone_into(&mut lead.last_name);
            }
            _ => rest.push((column, value)),
        }
    }
    lead.remarks = remarks(rest.into_iter());
    lead.tidied()
}

/// The remarks that say these cells: the first that is a remark as it is, the others with their column.
pub(super) fn remarks<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut cells: Vec<_> = cells.collect();
    let first = cells.iter().position(|(column, _)| meaning(column) == Meaning::Field(Field::Remarks));
    let first = first.map(|place| cells.remove(place).1.to_owned());
    let others = cells.into_iter().map(|(column, value)| format!("{column}: {value}"));
    first.into_iter().chain(others).collect::<Vec<_>>().join("; ")
}

fn meaning(column: &str) -> Meaning {
    let letters: String = column.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
    NAMES.iter().find(|(name, _)| *name == letters).map_or(Meaning::Rest, |(_, meaning)| *meaning)
}

/// One `@` with something before it and a domain with a dot after it, no blanks.
fn is_email(text: &str) -> bool {
    let Some((user, domain)) = text.split_once('@') else { return false };
    let domain_is_one = domain.split('.').count() > 1 && domain.split('.').all(|label| !label.is_empty());
    !user.is_empty() && domain_is_one && !domain.contains('@') && !text.contains(char::is_whitespace)
}

/// "Ada King Lovelace" or "Lovelace, Ada King".
fn split_name(name: &str) -> (&str, &str) {
    if let Some((last, first)) = name.split_once(',') {
        return (first.trim(), last.trim());
    }
    name.rsplit_once(char::is_whitespace).map_or(("", name), |(first, last)| (first.trim(), last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_their_names_and_nothing_is_lost() {
        let row = RawLead::from_pairs([
            ("Index", "1"),
            ("First Name", " Victor "),
            ("Last Name", "Cochran"),
            ("Company", "Grimes, Madden and Huff"),
            ("Phone 1", "+1-532-344-1362"),
            ("Phone 2", "2754733370"),
            ("Email 1", "HAtkinson@mclaughlin.com"),
            ("Email 2", "ygibbs@guzman.com"),
            ("Notes", "Speak own such."),
        ]);
        let lead = by_rules(&row).expect("a lead");
        assert_eq!((lead.first_name.as_str(), lead.last_name.as_str()), ("Victor", "Cochran"));
        assert_eq!(lead.company, "Grimes, Madden and Huff");
        assert_eq!(lead.phone, "+1-532-344-1362");
        assert_eq!(lead.email, "hatkinson@mclaughlin.com");
        assert_eq!(
            lead.remarks,
            "Speak own such.; Index: 1; Phone 2: 2754733370; Email 2: ygibbs@guzman.com"
        );
    }

    #[test]
    fn a_full_name_is_split() {
        for (name, first, last) in [
            ("Ada King Lovelace", "Ada King", "Lovelace"),
            ("Lovelace, Ada", "Ada", "Lovelace"),
            ("Ada", "", "Ada"),
        ] {
            let lead = by_rules(&RawLead::from_pairs([("Name", name)])).expect("a lead");
            assert_eq!((lead.first_name.as_str(), lead.last_name.as_str()), (first, last), "{name}");
        }
    }

    #[test]
    fn what_is_no_address_is_kept_as_a_remark() {
        let lead = by_rules(&RawLead::from_pairs([("Name", "Ada"), ("E-Mail", "n/a")])).expect("a lead");
        assert_eq!((lead.email.as_str(), lead.remarks.as_str()), ("", "E-Mail: n/a"));
        assert!(by_rules(&RawLead::from_pairs([("Notes", "call back")])).is_err(), "nobody");
    }
}
