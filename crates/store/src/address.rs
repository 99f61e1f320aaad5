//! Addresses of stores, which hold passwords that must never be shown.

use std::fmt;

use onelog_mapping::DefinitionError;

const ADDRESS_BYTES_MAX: usize = 2048;

/// An address with a password in it, perhaps as `${NAME}`: the value of an environment variable.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Reads an address that begins with one of `schemes`.
    pub fn parse(text: &str, schemes: &[&'static str]) -> Result<Self, String> {
        if text.len() > ADDRESS_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(format!(
                "an address has at most {ADDRESS_BYTES_MAX} bytes and no control characters"
            ));
        }
        let scheme = text.split("://").next().unwrap_or("");
        if !text.contains("://") || !schemes.contains(&scheme) {
            let known: Vec<String> = schemes.iter().map(|s| format!("'{s}://'")).collect();
            return Err(format!(
                "an address that starts with {} is needed",
                one_of(&known)
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether both lead to one place, as far as their texts show.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.without_user() == other.without_user()
    }

    fn without_user(&self) -> &str {
        let behind = self.0.rsplit('@').next().unwrap_or(&self.0);
        let behind = behind.split("://").last().unwrap_or(behind);
        let place = behind.split('?').next().unwrap_or(behind);
        place.trim_end_matches('/')
    }

    /// The address as it was written, `${…}` included. Holds a password; see [`Address::shown`].
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// The address with every `${NAME}` replaced by that environment variable.
    pub fn resolve(&self) -> Result<String, DefinitionError> {
        resolve(&self.0, |name| std::env::var(name).ok())
            .map_err(|what| DefinitionError::new("url", what))
    }

    /// The address without its password and without secrets behind `?`.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.0)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

pub(crate) fn one_of(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn resolve(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside
            .find('}')
            .ok_or_else(|| "a '${' has no '}' behind it".to_owned())?;
        let name = &inside[..end];
        let found = value(name).ok_or_else(|| {
            format!("the environment variable '{name}' is not set where onelog runs")
        })?;
        out.push_str(&found);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Everything between the colon of the user and the last '@' may be a password; of the
/// parameters only the names are shown. In doubt too much is hidden.
fn shown(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (before, rest) = match text[start..].rfind('@') {
        Some(at) => (Some(&text[start..start + at]), &text[start + at..]),
        None => (None, &text[start..]),
    };
    let mut out = text[..start].to_owned();
    match before {
        Some(user) if user.contains(['?', '/']) && !user.contains(':') => out.push_str("***"),
        Some(user) => match user.split_once(':') {
            Some((name, _)) => {
                out.push_str(name);
                out.push_str(":***");
            }
            None => out.push_str(user),
        },
        None => {}
    }
    let (address, query) = match rest.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (rest, None),
    };
    out.push_str(address);
    if let Some(query) = query {
        let parts: Vec<String> = query
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, value)) if is_plain_parameter(name) => format!("{name}={value}"),
                Some((name, _)) => format!("{name}=***"),
                None => "***".to_owned(),
            })
            .collect();
        out.push('?');
        out.push_str(&parts.join("&"));
    }
    out
}

/// Parameters that are known to hold no secret.
fn is_plain_parameter(name: &str) -> bool {
    [
        "sslmode",
        "application_name",
        "connect_timeout",
        "target_session_attrs",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_ever_shown() {
        for (url, expected) in [
            (
                "postgres://me:pa@ss/w:rd@host:1/db",
                "postgres://me:***@host:1/db",
            ),
            ("postgres://me@host/db", "postgres://me@host/db"),
            ("redis://:secret@host", "redis://:***@host"),
            ("http://host:9200", "http://host:9200"),
            (
                "http://host/a?api_key=x&sslmode=require&y",
                "http://host/a?api_key=***&sslmode=require&***",
            ),
            ("mysql://u:${PW}@h/d", "mysql://u:***@h/d"),
            ("mysql://u:a?b=c@h/d", "mysql://u:***@h/d"),
            ("http://h/?token=a@b", "http://***@b"),
        ] {
            let url = Address(url.to_owned());
            assert_eq!(url.shown(), expected);
            assert_eq!(format!("{url:?} {url}"), format!("{expected} {expected}"));
        }
    }

    #[test]
    fn environment_variables_replace_secrets() {
        let value = |name: &str| (name == "PW").then(|| "s3".to_owned());
        assert_eq!(resolve("a:${PW}@${PW}/", value).unwrap(), "a:s3@s3/");
        assert!(resolve("a:${NO}@", value).unwrap_err().contains("'NO'"));
        assert!(resolve("a:${PW", value).is_err());
    }
}
