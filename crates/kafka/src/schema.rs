//! The fields of requests, as the guard walks them: of which types, in which versions. The protocol's
//! own descriptions say it; tests hold each line against the library that decodes.

/// A type as it is on the wire. In the flexible versions of a request lengths are varints, and each
/// structure ends with tagged fields.
#[derive(Debug)]
pub enum Type {
    Fixed(usize),
    Bool,
    Text,
    List(&'static Type),
    Struct(&'static [Field]),
}

/// A field of a structure.
#[derive(Debug)]
pub struct Field {
    pub kind: Type,
    /// The first version that has it.
    pub from: i16,
    /// The last version that has it.
    pub to: i16,
    /// Its number, where it is a tagged field.
    pub tag: Option<u32>,
}

impl Field {
    pub const fn is_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }

    /// Only from this version on.
    pub const fn from(mut self, version: i16) -> Self {
        self.from = version;
        self
    }

    /// Only up to this version.
    pub const fn to(mut self, version: i16) -> Self {
        self.to = version;
        self
    }
}

const fn field(kind: Type) -> Field {
    Field {
        kind,
        from: 0,
        to: i16::MAX,
        tag: None,
    }
}

pub const fn boolean() -> Field {
    field(Type::Bool)
}

pub const fn int32() -> Field {
    field(Type::Fixed(4))
}

pub const fn uuid() -> Field {
    field(Type::Fixed(16))
}

pub const fn text() -> Field {
    field(Type::Text)
}

pub const fn list(of: &'static Type) -> Field {
    field(Type::List(of))
}

pub const API_VERSIONS: &[Field] = &[
    text().from(3),
    text().from(3),
    text().from(5),
    int32().from(5),
];

const METADATA_TOPIC: &[Field] = &[uuid().from(10), text()];
pub const METADATA: &[Field] = &[
    list(&Type::Struct(METADATA_TOPIC)),
    boolean().from(4),
    boolean().from(8).to(10),
    boolean().from(8),
];
