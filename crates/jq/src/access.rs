//! How the interpreter takes values apart, puts them together and changes parts of them.

use std::fmt;
use std::rc::Rc;

use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{Exn, ValT, ValX};
use jaq_json::Num;

use super::arithmetic::{Error, ValR};
use super::json::{self, NotFinite};
use super::meter;
use super::value::{Array, Object, Value, as_float, unshare_array, unshare_object};

/// How much of a value is shown in an error.
pub(super) const SHOWN_BYTES_MAX: usize = 200;

/// The first bytes of a text, whole characters only.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    match text.get(..end) {
        Some(start) if end < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Value {
    /// Its JSON, cut; used for errors only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = Vec::new();
        // What does not fit is cut off below.
        let _too_long = json::write(self, &mut shown, SHOWN_BYTES_MAX, NotFinite::Null);
        f.write_str(&cut(&String::from_utf8_lossy(&shown)))
    }
}

impl Value {
    /// Its compact JSON as a string of jq's.
    pub(super) fn written(&self) -> Self {
        meter::allocate(self.bytes());
        let mut out = Vec::new();
        // Without a limit and without a refusal of numbers, writing cannot fail; the length of
        // what is written is bounded by the size that the value was allowed to have.
        let _infallible = json::write(self, &mut out, usize::MAX, NotFinite::Null);
        Self::text(String::from_utf8(out).unwrap_or_default())
    }

    /// The number as an index: its fraction is dropped.
    pub(super) fn as_index(&self) -> Option<isize> {
        match self {
            Self::Number(Num::Int(integer)) => Some(*integer),
            Self::Number(number) => {
                let float = as_float(number).floor();
                // Floats beyond the range become the ends of the range, where no item is.
                #[allow(clippy::cast_possible_truncation)]
                float.is_finite().then_some(float as isize)
            }
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<isize> for Value {
    fn from(value: isize) -> Self {
        Self::Number(Num::Int(value))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Number(Num::from_integral(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(Num::Float(value))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::text(value)
    }
}

impl From<Range<Self>> for Value {
    fn from(range: Range<Self>) -> Self {
        let bound = |name: &str, bound: Option<Self>| {
            (Rc::new(name.to_owned()), bound.unwrap_or(Self::Null))
        };
        let fields = [bound("start", range.start), bound("end", range.end)];
        Self::object(fields.into_iter().collect())
    }
}

impl FromIterator<Self> for Value {
    fn from_iter<I: IntoIterator<Item = Self>>(items: I) -> Self {
        Self::array(items.into_iter().collect())
    }
}

/// The parts of a shared container, one by one, without copying the container first.
struct Parts<T, P> {
    whole: Rc<T>,
    next: usize,
    end: usize,
    part: fn(&T, usize) -> Option<P>,
}

impl<T, P> Iterator for Parts<T, P> {
    type Item = Result<P, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = (self.part)(&self.whole, self.next)?;
        self.next += 1;
        Some(Ok(part))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next);
        (left, Some(left))
    }
}

fn array_parts<P: 'static>(
    whole: Rc<Array>,
    part: fn(&Array, usize) -> Option<P>,
) -> Box<dyn Iterator<Item = Result<P, Error>>> {
    let end = whole.items().len();
    Box::new(Parts {
        whole,
        next: 0,
        end,
        part,
    })
}

fn object_parts<P: 'static>(
    whole: Rc<Object>,
    part: fn(&Object, usize) -> Option<P>,
) -> Box<dyn Iterator<Item = Result<P, Error>>> {
    let end = whole.fields().len();
    Box::new(Parts {
        whole,
        next: 0,
        end,
        part,
    })
}

fn not_iterable<P: 'static>(value: Value) -> Box<dyn Iterator<Item = Result<P, Error>>> {
    Box::new(std::iter::once(Err(Error::typ(value, "array or object"))))
}

/// Where an index points to in something of this length, negative ones counted from the end.
fn absolute(index: isize, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(index.unsigned_abs()),
    }
}

/// Start and end of a slice of something of this length.
fn bounds(range: Range<&Value>, length: usize) -> Result<std::ops::Range<usize>, Error> {
    let bound = |bound: Option<&Value>, default: usize| match bound {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_index() {
            Some(index) => Ok(absolute(index, length).unwrap_or(0).min(length)),
            None => Err(Error::typ(value.clone(), "bound of a slice")),
        },
    };
    let start = bound(range.start, 0)?;
    let end = bound(range.end, length)?;
    Ok(start..end.max(start))
}

fn slice_of_object(object: &Object) -> (Option<Value>, Option<Value>) {
    let bound = |name: &str| object.get(&Rc::new(name.to_owned())).cloned();
    (bound("start"), bound("end"))
}

/// The indices of the part in the whole.
fn positions(whole: &Array, part: &Array) -> Value {
    meter::step(whole.items().len() as u64);
    let length = part.items().len();
    if length == 0 {
        return Value::array(Array::new());
    }
    let windows = whole.items().windows(length).enumerate();
    windows
        .filter(|(_, window)| *window == part.items())
        .map(|(i, _)| Value::from(i))
        .collect()
}

fn slice_text(text: &str, range: Range<&Value>) -> ValR {
    meter::read(text.len());
    let characters = text.chars().count();
    let range = bounds(range, characters)?;
    let skip = range.start;
    let part: String = text.chars().skip(skip).take(range.len()).collect();
    Ok(Value::text(part))
}

/// A program may write a number with leading zeros, which JSON does not have.
fn without_leading_zeros(written: &str) -> &str {
    let rest = written.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return rest;
    }
    let zeros = written.len() - rest.len();
    &written[zeros.saturating_sub(1)..]
}

impl ValT for Value {
    fn from_num(written: &str) -> ValR {
        Ok(Self::number(without_leading_zeros(written)))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(fields: I) -> ValR {
        let mut object = Object::new();
        for (name, value) in fields {
            match name {
                Self::Text(name) => object.insert(name, value),
                other => return Err(Error::typ(other, "name of a field (a string)")),
            }
        }
        Ok(Self::object(object))
    }

    fn key_values(self) -> Box<dyn Iterator<Item = Result<(Self, Self), Error>>> {
        match self {
            Self::Array(array) => array_parts(array, |array, i| {
                Some((Self::from(i), array.items().get(i)?.clone()))
            }),
            Self::Object(object) => object_parts(object, |object, i| {
                let (name, value) = object.fields().get_index(i)?;
                Some((Self::Text(Rc::clone(name)), value.clone()))
            }),
            other => not_iterable(other),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR>> {
        match self {
            Self::Array(array) => array_parts(array, |array, i| array.items().get(i).cloned()),
            Self::Object(object) => object_parts(object, |object, i| {
                object.fields().get_index(i).map(|(_, value)| value.clone())
            }),
            other => not_iterable(other),
        }
    }

    fn index(self, index: &Self) -> ValR {
        meter::step(1);
        match (&self, index) {
            (Self::Null, Self::Null | Self::Number(_) | Self::Text(_) | Self::Object(_)) => {
                Ok(Self::Null)
            }
            (Self::Object(object), Self::Text(name)) => {
                Ok(object.get(name).cloned().unwrap_or(Self::Null))
            }
            (Self::Array(array), Self::Number(_)) => {
                let length = array.items().len();
                let at = index.as_index().and_then(|index| absolute(index, length));
                let item = at.and_then(|at| array.items().get(at));
                Ok(item.cloned().unwrap_or(Self::Null))
            }
            (Self::Array(whole), Self::Array(part)) => Ok(positions(whole, part)),
            (Self::Array(_) | Self::Text(_), Self::Object(slice)) => {
                let (start, end) = slice_of_object(slice);
                self.range(start.as_ref()..end.as_ref())
            }
            _ => Err(Error::index(self, index.clone())),
        }
    }

    fn range(self, range: Range<&Self>) -> ValR {
        match self {
            Self::Null => Ok(Self::Null),
            Self::Text(text) => slice_text(&text, range),
            Self::Array(array) => {
                let range = bounds(range, array.items().len())?;
                let part = array.items().get(range).unwrap_or_default();
                Ok(part.iter().cloned().collect())
            }
            other => Err(Error::typ(other, "array or string")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match self {
            Self::Array(array) => {
                let items = unshare_array(array).into_items().into_iter();
                Ok(Self::array(items.flat_map(f).collect::<Result<_, _>>()?))
            }
            Self::Object(object) => {
                let mut changed = Object::new();
                for (name, value) in object.fields() {
                    if let Some(value) = f(value.clone()).next() {
                        changed.insert(Rc::clone(name), value?);
                    }
                }
                Ok(Self::object(changed))
            }
            other => opt.fail(other, |v| Exn::from(Error::typ(v, "array or object"))),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        meter::step(1);
        match (self, index) {
            (whole @ (Self::Array(_) | Self::Null), Self::Object(slice)) => {
                let (start, end) = slice_of_object(slice);
                whole.map_range(start.as_ref()..end.as_ref(), opt, f)
            }
            (Self::Null, Self::Text(name)) => change_field(Object::new(), name, f),
            (Self::Object(object), Self::Text(name)) => {
                change_field(unshare_object(object), name, f)
            }
            (Self::Null, Self::Number(_)) => change_item(Array::new(), index, f),
            (Self::Array(array), Self::Number(_)) => change_item(unshare_array(array), index, f),
            (whole, _) => opt.fail(whole, |whole| Exn::from(Error::index(whole, index.clone()))),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let array = match self {
            Self::Array(array) => array,
            Self::Null => Rc::new(Array::new()),
            other => return opt.fail(other, |v| Exn::from(Error::typ(v, "array"))),
        };
        let items = array.items();
        let range = bounds(range, items.len())?;
        let part: Self = items
            .get(range.clone())
            .unwrap_or_default()
            .iter()
            .cloned()
            .collect();
        let replacement = match f(part).next().transpose()? {
            None => Rc::new(Array::new()),
            Some(Self::Array(replacement)) => replacement,
            Some(other) => return Err(Exn::from(Error::typ(other, "array"))),
        };
        let before = items.get(..range.start).unwrap_or_default().iter();
        let after = items.get(range.end..).unwrap_or_default().iter();
        let changed = before.chain(replacement.items()).chain(after).cloned();
        Ok(changed.collect())
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn into_string(self) -> Self {
        match self {
            Self::Text(_) => self,
            other => other.written(),
        }
    }
}

fn change_field<'a, I: Iterator<Item = ValX<'a, Value>>>(
    mut object: Object,
    name: &Rc<String>,
    f: impl Fn(Value) -> I,
) -> ValX<'a, Value> {
    let old = object.get(name).cloned().unwrap_or(Value::Null);
    match f(old).next().transpose()? {
        Some(value) => object.insert(Rc::clone(name), value),
        None => object.remove(name),
    }
    Ok(Value::object(object))
}

/// Changes an item; one beyond the end makes the array longer, with nulls between.
fn change_item<'a, I: Iterator<Item = ValX<'a, Value>>>(
    mut array: Array,
    index: &Value,
    f: impl Fn(Value) -> I,
) -> ValX<'a, Value> {
    let length = array.items().len();
    let at = index.as_index().and_then(|index| absolute(index, length));
    let Some(at) = at else {
        let problem = format_args!("the index {index} is before the array's start").to_string();
        return Err(Exn::from(Error::str(problem)));
    };
    let old = array.take(at);
    match f(old).next().transpose()? {
        Some(value) => {
            while array.items().len() <= at {
                array.push(Value::Null);
            }
            array.put(at, value);
        }
        None if at < length => array.remove(at),
        None => {}
    }
    Ok(Value::array(array))
}

impl jaq_std::ValT for Value {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self {
            Self::Array(array) => Ok(unshare_array(array).into_items().into_iter().collect()),
            other => Err(other),
        }
    }

    fn is_int(&self) -> bool {
        matches!(self, Self::Number(Num::Int(_) | Num::BigInt(_)))
    }

    fn as_isize(&self) -> Option<isize> {
        match self {
            Self::Number(Num::Int(integer)) => Some(*integer),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(as_float(number)),
            _ => None,
        }
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => {
                meter::read(text.len());
                Some(text.as_bytes())
            }
            _ => None,
        }
    }

    fn as_sub_str(&self, part: &[u8]) -> Self {
        Self::text(String::from_utf8_lossy(part).into_owned())
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self::text(String::from_utf8_lossy(bytes.as_ref()).into_owned())
    }
}
