//! The fields of requests, as the guard walks them: of which types, in which versions. The protocol's
//! own descriptions say it; tests hold each line against the library that decodes.

/// A type as it is on the wire. In the flexible versions of a request lengths are varints, and each
/// structure ends with tagged fields.
#[derive(Debug)]
pub enum Type {
    Fixed(usize),
    Bool,
    Text,
    Bytes,
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

    /// Behind the other fields, with a number and a size.
    pub const fn tag(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
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

pub const fn int8() -> Field {
    field(Type::Fixed(1))
}

pub const fn int16() -> Field {
    field(Type::Fixed(2))
}

pub const fn int32() -> Field {
    field(Type::Fixed(4))
}

pub const fn int64() -> Field {
    field(Type::Fixed(8))
}

pub const fn uuid() -> Field {
    field(Type::Fixed(16))
}

pub const fn text() -> Field {
    field(Type::Text)
}

pub const fn bytes() -> Field {
    field(Type::Bytes)
}

pub const fn list(of: &'static Type) -> Field {
    field(Type::List(of))
}

pub const fn structure(fields: &'static [Field]) -> Field {
    field(Type::Struct(fields))
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

const PRODUCE_PARTITION: &[Field] = &[int32(), bytes()];
const PRODUCE_TOPIC: &[Field] = &[
    text().to(12),
    uuid().from(13),
    list(&Type::Struct(PRODUCE_PARTITION)),
];
pub const PRODUCE: &[Field] = &[text(), int16(), int32(), list(&Type::Struct(PRODUCE_TOPIC))];

const FETCH_PARTITION: &[Field] = &[
    int32(),
    int32().from(9),
    int64(),
    int32().from(12),
    int64().from(5),
    int32(),
    uuid().from(17).tag(0),
    int64().from(18).tag(1),
];
const FETCH_TOPIC: &[Field] = &[
    text().to(12),
    uuid().from(13),
    list(&Type::Struct(FETCH_PARTITION)),
];
const FETCH_FORGOTTEN: &[Field] = &[text().to(12), uuid().from(13), list(&Type::Fixed(4))];
const FETCH_REPLICA: &[Field] = &[int32(), int64()];
pub const FETCH: &[Field] = &[
    text().from(12).tag(0),
    structure(FETCH_REPLICA).from(15).tag(1),
    int32().to(14),
    int32(),
    int32(),
    int32(),
    int8(),
    int32().from(7),
    int32().from(7),
    list(&Type::Struct(FETCH_TOPIC)),
    list(&Type::Struct(FETCH_FORGOTTEN)).from(7),
    text().from(11),
];

const LIST_OFFSETS_PARTITION: &[Field] = &[int32(), int32().from(4), int64()];
const LIST_OFFSETS_TOPIC: &[Field] = &[text(), list(&Type::Struct(LIST_OFFSETS_PARTITION))];
pub const LIST_OFFSETS: &[Field] = &[
    int32(),
    int8().from(2),
    list(&Type::Struct(LIST_OFFSETS_TOPIC)),
    int32().from(10),
];

pub const FIND_COORDINATOR: &[Field] = &[text().to(3), int8().from(1), list(&Type::Text).from(4)];

pub const INIT_PRODUCER_ID: &[Field] = &[text(), int32(), int64().from(3), int16().from(3)];

const LEADER_EPOCH_PARTITION: &[Field] = &[int32(), int32(), int32()];
const LEADER_EPOCH_TOPIC: &[Field] = &[text(), list(&Type::Struct(LEADER_EPOCH_PARTITION))];
pub const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[int32().from(3), list(&Type::Struct(LEADER_EPOCH_TOPIC))];

const NEW_TOPIC_ASSIGNMENT: &[Field] = &[int32(), list(&Type::Fixed(4))];
const NEW_TOPIC_CONFIG: &[Field] = &[text(), text()];
const NEW_TOPIC: &[Field] = &[
    text(),
    int32(),
    int16(),
    list(&Type::Struct(NEW_TOPIC_ASSIGNMENT)),
    list(&Type::Struct(NEW_TOPIC_CONFIG)),
];
pub const CREATE_TOPICS: &[Field] = &[list(&Type::Struct(NEW_TOPIC)), int32(), boolean()];

const OLD_TOPIC: &[Field] = &[text(), uuid()];
pub const DELETE_TOPICS: &[Field] = &[
    list(&Type::Struct(OLD_TOPIC)).from(6),
    list(&Type::Text).to(5),
    int32(),
];

const CONFIG_RESOURCE: &[Field] = &[int8(), text(), list(&Type::Text)];
pub const DESCRIBE_CONFIGS: &[Field] = &[
    list(&Type::Struct(CONFIG_RESOURCE)),
    boolean(),
    boolean().from(3),
];

pub const DESCRIBE_CLUSTER: &[Field] = &[boolean(), int8().from(1), boolean().from(2)];
