//! Where a store is that is reached over the network: the fields of a definition that such kinds
//! have in common.

use std::path::PathBuf;

use onelog_mapping::{DefinitionError, FieldRule, FieldValue, Object};
use serde_json::{Map, Value};

use crate::address::Address;
use crate::tls::Trust;

/// The field of a definition that names a file of certificates.
pub const CA_FILE: FieldRule = FieldRule {
    name: "ca_file",
    help: "a file of certificates that are trusted instead of the system's",
    value: FieldValue::Text,
};
/// The field of a definition that holds an address.
pub const URL: FieldRule = FieldRule {
    name: "url",
    help: "where the store is; ${NAME} is replaced by that environment variable of the server",
    value: FieldValue::Text,
};

/// An address, and whose certificates are trusted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    pub url: Address,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl ServerAddress {
    /// The address in a definition, which begins with one of `schemes`.
    pub fn read(
        definition: &Object<'_>,
        schemes: &[&'static str],
    ) -> Result<Self, DefinitionError> {
        let url = Address::parse(definition.text(URL.name)?, schemes)
            .map_err(|what| DefinitionError::new(definition.place(URL.name), what))?;
        let ca_file = definition.optional_text(CA_FILE.name)?.map(PathBuf::from);
        Ok(Self { url, ca_file })
    }

    /// The fields that [`ServerAddress::read`] reads; `more` comes between them.
    #[must_use]
    pub fn fields(&self, secrets: bool, more: Option<(&str, Value)>) -> Map<String, Value> {
        let mut out = Map::new();
        let url = match secrets {
            true => self.url.as_written().to_owned(),
            false => self.url.shown(),
        };
        out.insert(URL.name.to_owned(), url.into());
        if let Some((name, value)) = more {
            out.insert(name.to_owned(), value);
        }
        if let Some(path) = &self.ca_file {
            out.insert(CA_FILE.name.to_owned(), path.display().to_string().into());
        }
        out
    }

    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.url.is_same_place(&other.url)
    }

    /// What is wrong with the address, as far as it shows without connecting.
    pub fn check(&self) -> Result<(), String> {
        self.url.resolve().map(drop).map_err(|error| error.what)
    }

    #[must_use]
    pub fn trust(&self) -> Trust<'_> {
        Trust::of(self.ca_file.as_deref())
    }
}

impl From<&str> for ServerAddress {
    fn from(url: &str) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
        }
    }
}
