//! The operators of jq: `+`, `-`, `*`, `/`, `%`.

use std::collections::BTreeSet;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::ops::Math;
use jaq_json::Num;

use super::meter::{self, Limit, VALUE_BYTES_MAX};
use super::value::{
    Array, Object, Value, as_float, is_too_long, read_digits, unshare_array, unshare_object,
};

pub(super) type Error = jaq_core::Error<Value>;
pub(super) type ValR = Result<Value, Error>;

fn number(result: Num) -> ValR {
    if is_too_long(&result) {
        return Err(Error::str("the result has too many digits"));
    }
    meter::step(1);
    let result = Value::Number(match &result {
        Num::BigInt(big) => isize::try_from(&**big).map_or(result, Num::Int),
        _ => result,
    });
    meter::allocate(result.bytes());
    Ok(result)
}

impl Add for Value {
    type Output = ValR;

    fn add(self, right: Self) -> ValR {
        match (self, right) {
            (Self::Null, other) | (other, Self::Null) => Ok(other),
            (Self::Number(left), Self::Number(right)) => {
                read_digits(&left);
                read_digits(&right);
                number(left + right)
            }
            (Self::Text(left), Self::Text(right)) => Ok(Self::Text(concatenate(left, &right))),
            (Self::Array(left), Self::Array(right)) => {
                let mut left = unshare_array(left);
                for item in right.items() {
                    left.push(item.clone());
                }
                Ok(Self::array(left))
            }
            (Self::Object(left), Self::Object(right)) => {
                let mut left = unshare_object(left);
                for (name, value) in right.fields() {
                    left.insert(Rc::clone(name), value.clone());
                }
                Ok(Self::object(left))
            }
            (left, right) => Err(Error::math(left, Math::Add, right)),
        }
    }
}

fn concatenate(mut left: Rc<String>, right: &str) -> Rc<String> {
    if left.len() + right.len() > VALUE_BYTES_MAX {
        meter::stop(Limit::ValueSize);
    }
    if Rc::get_mut(&mut left).is_none() {
        meter::allocate(left.len());
    }
    meter::allocate(right.len());
    Rc::make_mut(&mut left).push_str(right);
    left
}

impl Sub for Value {
    type Output = ValR;

    fn sub(self, right: Self) -> ValR {
        match (self, right) {
            (Self::Number(left), Self::Number(right)) => {
                read_digits(&left);
                read_digits(&right);
                number(left - right)
            }
            (Self::Array(left), Self::Array(right)) => {
                let without: BTreeSet<&Self> = right.items().iter().collect();
                let kept = left.items().iter().filter(|item| !without.contains(item));
                Ok(Self::array(kept.cloned().collect::<Array>()))
            }
            (left, right) => Err(Error::math(left, Math::Sub, right)),
        }
    }
}

impl Mul for Value {
    type Output = ValR;

    fn mul(self, right: Self) -> ValR {
        match (self, right) {
            (Self::Number(left), Self::Number(right)) => {
                read_digits(&left);
                read_digits(&right);
                number(left * right)
            }
            (Self::Text(text), Self::Number(times)) | (Self::Number(times), Self::Text(text)) => {
                Ok(repeat(&text, as_float(&times)))
            }
            (Self::Object(left), Self::Object(right)) => Ok(Self::object(merge(left, &right))),
            (left, right) => Err(Error::math(left, Math::Mul, right)),
        }
    }
}

/// The text so many times, a begun time counted whole; null for none.
fn repeat(text: &str, times: f64) -> Value {
    if times.is_nan() || times <= 0.0 {
        return Value::Null;
    }
    // A float beyond the range becomes the largest integer, which is refused below.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let times = times.ceil() as usize;
    let bytes = text.len().saturating_mul(times);
    if bytes > VALUE_BYTES_MAX {
        meter::stop(Limit::ValueSize);
    }
    meter::allocate(bytes);
    Value::text(if text.is_empty() {
        String::new()
    } else {
        text.repeat(times)
    })
}

fn merge(left: Rc<Object>, right: &Object) -> Object {
    let mut left = unshare_object(left);
    for (name, value) in right.fields() {
        let merged = match (left.get(name), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => {
                Value::object(merge(Rc::clone(inner), value))
            }
            _ => value.clone(),
        };
        left.insert(Rc::clone(name), merged);
    }
    left
}

impl Div for Value {
    type Output = ValR;

    fn div(self, right: Self) -> ValR {
        match (self, right) {
            (Self::Number(left), Self::Number(right)) => {
                read_digits(&left);
                read_digits(&right);
                if as_float(&right) == 0.0 {
                    return Err(zero_divisor(&left, '/'));
                }
                number(left / right)
            }
            (Self::Text(text), Self::Text(separator)) => {
                meter::read(text.len());
                Ok(Self::array(split(&text, &separator)))
            }
            (left, right) => Err(Error::math(left, Math::Div, right)),
        }
    }
}

fn zero_divisor(left: &Num, operator: char) -> Error {
    let left = Value::Number(left.clone());
    Error::str(format_args!(
        "cannot calculate {left} {operator} 0: the divisor is zero"
    ))
}

fn split(text: &str, separator: &str) -> Array {
    let part = |part: &str| Value::text(part.to_owned());
    if text.is_empty() {
        Array::new()
    } else if separator.is_empty() {
        let mut buffer = [0; 4];
        text.chars()
            .map(|character| part(character.encode_utf8(&mut buffer)))
            .collect()
    } else {
        text.split(separator).map(part).collect()
    }
}

impl Rem for Value {
    type Output = ValR;

    fn rem(self, right: Self) -> ValR {
        match (self, right) {
            (Self::Number(left), Self::Number(right)) => {
                read_digits(&left);
                read_digits(&right);
                if as_float(&right) == 0.0 {
                    return Err(zero_divisor(&left, '%'));
                }
                number(left % right)
            }
            (left, right) => Err(Error::math(left, Math::Rem, right)),
        }
    }
}

impl Neg for Value {
    type Output = ValR;

    fn neg(self) -> ValR {
        match self {
            Self::Number(value) => {
                read_digits(&value);
                number(-value)
            }
            other => Err(Error::typ(other, "number")),
        }
    }
}
