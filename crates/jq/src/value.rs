//! The values that programs compute with: JSON, with each container knowing its size and depth.
//!
//! Parts are shared, so that a few steps can make a value whose written form would fill the
//! memory (`reduce range(60) as $i (.; [., .])`). Every container therefore carries the size that
//! it has with all shared parts counted each time, and none is made beyond the limits; walking,
//! comparing, writing and dropping any value is then bounded.

use std::rc::Rc;

use jaq_json::Num;

use super::meter::{self, DEPTH_MAX, Limit, VALUE_BYTES_MAX};

pub(super) type Fields = jaq_json::Map<Rc<String>, Value>;

/// What one element of an array costs, in bytes.
const ITEM_BYTES: usize = size_of::<Value>();
/// What one field of an object costs besides its name, in bytes.
const FIELD_BYTES: usize = 64;
/// Integers of more bits than this are refused as results of calculations.
const INTEGER_BITS_MAX: u64 = 4096;
/// Integers of more digits than this are kept as they are written and calculated as floats.
const INTEGER_DIGITS_MAX: usize = 400;

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Num),
    Text(Rc<String>),
    Array(Rc<Array>),
    Object(Rc<Object>),
}

impl Clone for Value {
    fn clone(&self) -> Self {
        meter::step(1);
        match self {
            Self::Null => Self::Null,
            Self::Bool(value) => Self::Bool(*value),
            Self::Number(number) => Self::Number(number.clone()),
            Self::Text(text) => Self::Text(Rc::clone(text)),
            Self::Array(array) => Self::Array(Rc::clone(array)),
            Self::Object(object) => Self::Object(Rc::clone(object)),
        }
    }
}

/// Size in bytes and depth of a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    bytes: usize,
    depth: u32,
}

impl Extent {
    const EMPTY: Self = Self {
        bytes: ITEM_BYTES,
        depth: 1,
    };

    fn add(&mut self, part: &Value, own_bytes: usize) {
        self.bytes = self
            .bytes
            .saturating_add(part.bytes().saturating_add(own_bytes));
        self.depth = self.depth.max(part.depth() + 1);
        if self.bytes > VALUE_BYTES_MAX {
            meter::stop(Limit::ValueSize);
        }
        if self.depth > DEPTH_MAX {
            meter::stop(Limit::Depth);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Array {
    items: Vec<Value>,
    extent: Extent,
}

impl Array {
    pub(super) const fn new() -> Self {
        Self {
            items: Vec::new(),
            extent: Extent::EMPTY,
        }
    }

    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }

    pub(super) fn into_items(self) -> Vec<Value> {
        self.items
    }

    pub(super) fn push(&mut self, item: Value) {
        meter::step(1);
        meter::allocate(ITEM_BYTES);
        self.extent.add(&item, ITEM_BYTES);
        self.items.push(item);
    }

    /// Takes an item out and leaves null in its place.
    pub(super) fn take(&mut self, index: usize) -> Value {
        let item = self
            .items
            .get_mut(index)
            .map_or(Value::Null, |item| std::mem::replace(item, Value::Null));
        self.extent.bytes = self.extent.bytes.saturating_sub(item.bytes());
        item
    }

    /// Replaces null by an item.
    pub(super) fn put(&mut self, index: usize, item: Value) {
        if let Some(place) = self.items.get_mut(index) {
            self.extent.add(&item, 0);
            *place = item;
        }
    }

    /// Removes an item; the ones behind it move up.
    pub(super) fn remove(&mut self, index: usize) {
        meter::read(self.items.len());
        let bytes = self.items.remove(index).bytes() + ITEM_BYTES;
        self.extent.bytes = self.extent.bytes.saturating_sub(bytes);
    }
}

impl FromIterator<Value> for Array {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        let mut array = Self::new();
        for item in items {
            array.push(item);
        }
        array
    }
}

/// An object; its fields keep their order.
#[derive(Clone, Debug)]
pub(super) struct Object {
    fields: Fields,
    extent: Extent,
}

impl Object {
    pub(super) fn new() -> Self {
        Self {
            fields: Fields::default(),
            extent: Extent::EMPTY,
        }
    }

    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(super) fn get(&self, name: &Rc<String>) -> Option<&Value> {
        meter::read(name.len());
        self.fields.get(name)
    }

    /// Sets a field; a new one comes last, an old one keeps its place.
    pub(super) fn insert(&mut self, name: Rc<String>, value: Value) {
        meter::step(1);
        meter::read(name.len());
        let old = self.fields.get(&name).map(|old| old.bytes() + name.len());
        if let Some(old) = old {
            self.extent.bytes = self.extent.bytes.saturating_sub(old + FIELD_BYTES);
        } else {
            meter::allocate(FIELD_BYTES);
        }
        self.extent.add(&value, FIELD_BYTES + name.len());
        self.fields.insert(name, value);
    }

    /// Removes a field; the others keep their order.
    pub(super) fn remove(&mut self, name: &Rc<String>) {
        meter::read(self.fields.len());
        if let Some(old) = self.fields.shift_remove(name) {
            let freed = old.bytes() + name.len() + FIELD_BYTES;
            self.extent.bytes = self.extent.bytes.saturating_sub(freed);
        }
    }
}

impl FromIterator<(Rc<String>, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (Rc<String>, Value)>>(fields: I) -> Self {
        let mut object = Self::new();
        for (name, value) in fields {
            object.insert(name, value);
        }
        object
    }
}

/// The container itself, copied only where it is shared.
pub(super) fn unshare_array(array: Rc<Array>) -> Array {
    Rc::try_unwrap(array).unwrap_or_else(|shared| {
        meter::allocate(shared.items.len() * ITEM_BYTES);
        (*shared).clone()
    })
}

/// The container itself, copied only where it is shared.
pub(super) fn unshare_object(object: Rc<Object>) -> Object {
    Rc::try_unwrap(object).unwrap_or_else(|shared| {
        meter::allocate(shared.fields.len() * FIELD_BYTES);
        (*shared).clone()
    })
}

impl Value {
    pub(super) fn text(text: String) -> Self {
        meter::allocate(text.len());
        if text.len() > VALUE_BYTES_MAX {
            meter::stop(Limit::ValueSize);
        }
        Self::Text(Rc::new(text))
    }

    pub(super) fn array(array: Array) -> Self {
        Self::Array(Rc::new(array))
    }

    pub(super) fn object(object: Object) -> Self {
        Self::Object(Rc::new(object))
    }

    /// A number as it is written in JSON or in a program; what cannot be held exactly stays text
    /// until a calculation touches it.
    pub(super) fn number(written: &str) -> Self {
        let digits = written.strip_prefix('-').unwrap_or(written);
        let exact = written != "-0"
            && digits.len() <= INTEGER_DIGITS_MAX
            && digits.bytes().all(|b| b.is_ascii_digit());
        let integer = if exact {
            Num::from_str_radix(written, 10)
        } else {
            None
        };
        let number = integer.unwrap_or_else(|| Num::Dec(jaq_json::Rc::new(written.to_owned())));
        let number = Self::Number(number);
        meter::allocate(number.bytes());
        number
    }

    /// Its size, with shared parts counted each time.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(Num::Int(_) | Num::Float(_)) => 0,
            Self::Number(Num::BigInt(number)) => {
                usize::try_from(number.bits() / 8).unwrap_or(usize::MAX)
            }
            Self::Number(Num::Dec(written)) => written.len(),
            Self::Text(text) => text.len(),
            Self::Array(array) => array.extent.bytes,
            Self::Object(object) => object.extent.bytes,
        }
    }

    fn depth(&self) -> u32 {
        match self {
            Self::Array(array) => array.extent.depth,
            Self::Object(object) => object.extent.depth,
            _ => 0,
        }
    }

    /// What kind of value it is, as jq names it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Counts what it costs to read all digits of a number.
pub(super) fn read_digits(number: &Num) {
    match number {
        Num::Int(_) | Num::Float(_) => {}
        // Three bits and a third make a digit.
        Num::BigInt(number) => {
            meter::read(usize::try_from(number.bits() / 3).unwrap_or(usize::MAX))
        }
        Num::Dec(written) => meter::read(written.len()),
    }
}

/// Whether a number is too long to calculate on.
pub(super) fn is_too_long(number: &Num) -> bool {
    matches!(number, Num::BigInt(number) if number.bits() > INTEGER_BITS_MAX)
}

/// The number as a float; long ones cost what reading them costs.
pub(super) fn as_float(number: &Num) -> f64 {
    read_digits(number);
    match number {
        Num::Float(float) => *float,
        #[allow(clippy::cast_precision_loss)]
        Num::Int(integer) => *integer as f64,
        // A digit string always reads as a float, if need be as an infinite one.
        Num::BigInt(integer) => integer.to_string().parse().unwrap_or(f64::NAN),
        Num::Dec(written) => written.parse().unwrap_or(f64::NAN),
    }
}
