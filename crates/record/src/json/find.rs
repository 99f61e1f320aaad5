//! Finds values by their paths in the text of a document: one pass that makes no tree, and what was
//! found can be replaced without one.

use std::borrow::Cow;

use super::read::{NESTING_MAX, Reader};
use super::{JsonFault, JsonString};
use crate::field::{FieldPath, array_index};

/// As many paths as one pass looks for.
pub const FOUND_AT_ONCE_MAX: usize = 16;

/// Some of the paths, as bits.
type Paths = u16;

/// The texts of the values at the first [`FOUND_AT_ONCE_MAX`] of these paths. The document is read to
/// its end.
///
/// # Errors
/// Says where the text is no JSON, as [`Json::parse`](super::Json::parse) does.
pub fn find<'t>(
    text: &'t [u8],
    paths: &[&FieldPath],
) -> Result<[Option<&'t str>; FOUND_AT_ONCE_MAX], JsonFault> {
    let mut reader = Reader::new(text)?;
    let mut finder = Finder {
        paths: paths.get(..FOUND_AT_ONCE_MAX).unwrap_or(paths),
        found: [None; FOUND_AT_ONCE_MAX],
    };
    let all = finder.among(Paths::MAX, |_| true);
    finder.walk(&mut reader, all, 0, NESTING_MAX)?;
    reader.end()?;
    Ok(finder.found)
}

struct Finder<'t, 'p> {
    paths: &'p [&'p FieldPath],
    found: [Option<&'t str>; FOUND_AT_ONCE_MAX],
}

impl<'t> Finder<'t, '_> {
    /// Reads a value to which the first `depth` steps of each of `paths` lead.
    fn walk(
        &mut self,
        reader: &mut Reader<'t>,
        paths: Paths,
        depth: usize,
        left: usize,
    ) -> Result<(), JsonFault> {
        // Of fields of one name the last one counts: what an earlier one had is forgotten.
        self.set(paths, None);
        let further = self.among(paths, |path| path.steps().len() > depth);
        let first = reader.next();
        let from = reader.at();
        match first {
            Some(b'{') if further != 0 => reader.fields(left, |reader, name, inner| {
                // A name with escapes is read once, for all paths.
                let name = name.text();
                let there = self.among(further, |path| path.steps()[depth] == name);
                self.walk_or_skip(reader, there, depth + 1, inner)
            })?,
            Some(b'[') if further != 0 => {
                let mut at = 0;
                let wanted = self.indices(further, depth);
                let last = wanted.iter().flatten().max().copied();
                reader.items(left, |reader, inner| {
                    let is_at = |n: &usize| wanted.get(*n) == Some(&Some(at));
                    let there = match last.is_some_and(|last| at <= last) {
                        true => (0..wanted.len())
                            .filter(is_at)
                            .fold(0, |some, n| some | 1 << n),
                        false => 0,
                    };
                    at += 1;
                    self.walk_or_skip(reader, there, depth + 1, inner)
                })?;
            }
            _ => reader.skip(left)?,
        }
        self.set(paths & !further, reader.text().get(from..reader.at()));
        Ok(())
    }

    fn walk_or_skip(
        &mut self,
        reader: &mut Reader<'t>,
        paths: Paths,
        depth: usize,
        left: usize,
    ) -> Result<(), JsonFault> {
        match paths {
            0 => reader.skip(left),
            paths => self.walk(reader, paths, depth, left),
        }
    }

    fn among(&self, paths: Paths, is: impl Fn(&FieldPath) -> bool) -> Paths {
        let mut some = 0;
        for n in bits(paths) {
            if self.paths.get(n).is_some_and(|path| is(path)) {
                some |= 1 << n;
            }
        }
        some
    }

    fn set(&mut self, paths: Paths, value: Option<&'t str>) {
        bits(paths).for_each(|n| self.found[n] = value);
    }

    /// The elements of an array to which the paths lead.
    fn indices(&self, paths: Paths, depth: usize) -> [Option<usize>; FOUND_AT_ONCE_MAX] {
        let mut indices = [None; FOUND_AT_ONCE_MAX];
        for n in bits(paths) {
            indices[n] = array_index(&self.paths[n].steps()[depth]);
        }
        indices
    }
}

fn bits(mut paths: Paths) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = paths.trailing_zeros();
        paths &= paths.wrapping_sub(1);
        (lowest < Paths::BITS).then_some(lowest as usize)
    })
}

/// A place in the text of a document to which a path leads. Objects on the way that are not there
/// yet are part of what is put there.
#[derive(Debug)]
pub struct Place<'t, 'p> {
    text: &'t str,
    has_blanks: bool,
    at: At<'p>,
}

/// What is replaced, from a byte to a byte, and the names on the way from there to the place.
#[derive(Clone, Copy, Debug)]
struct At<'p> {
    from: usize,
    to: usize,
    names: &'p [String],
    add: Added,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    /// It takes the place of a value.
    Nothing,
    /// The first name is a new field of an object, which has no others.
    FirstField,
    /// The first name is a new field of an object, behind others.
    Field,
}

/// The place to which a path leads, as [`Json::make`](super::Json::make) finds it; `None` where
/// something on the way is neither an object nor an array that reaches so far.
///
/// # Errors
/// Says where the text is no JSON.
pub fn place<'t, 'p>(
    text: &'t [u8],
    path: &'p FieldPath,
) -> Result<Option<Place<'t, 'p>>, JsonFault> {
    let mut reader = Reader::new(text)?;
    let at = walk_to(&mut reader, path.steps(), NESTING_MAX)?;
    reader.end()?;
    Ok(at.map(|at| Place {
        text: reader.text(),
        has_blanks: reader.has_blanks,
        at,
    }))
}

fn walk_to<'p>(
    reader: &mut Reader<'_>,
    names: &'p [String],
    left: usize,
) -> Result<Option<At<'p>>, JsonFault> {
    let first = reader.next();
    let from = reader.at();
    let mut found = None;
    match (first, names) {
        (Some(b'{'), [name, further @ ..]) => {
            let (mut is_there, mut add) = (false, Added::FirstField);
            reader.fields(left, |reader, field, inner| {
                add = Added::Field;
                if !field.says(name) {
                    return reader.skip(inner);
                }
                is_there = true;
                found = walk_to(reader, further, inner)?;
                Ok(())
            })?;
            let close = reader.at() - 1;
            if !is_there {
                found = Some(At {
                    from: close,
                    to: close,
                    names,
                    add,
                });
            }
            return Ok(found);
        }
        (Some(b'['), [index, further @ ..]) => {
            let wanted = array_index(index);
            let mut at = 0;
            reader.items(left, |reader, inner| {
                let is_it = wanted == Some(at);
                at += 1;
                if !is_it {
                    return reader.skip(inner);
                }
                found = walk_to(reader, further, inner)?;
                Ok(())
            })?;
            return Ok(found);
        }
        _ => reader.skip(left)?,
    }
    let is_free = names.is_empty() || first == Some(b'n');
    Ok(is_free.then_some(At {
        from,
        to: reader.at(),
        names,
        add: Added::Nothing,
    }))
}

impl<'t> Place<'t, '_> {
    /// The text of the value that is there, `null` where none is.
    #[must_use]
    pub fn met(&self) -> Cow<'t, str> {
        match self.at.names {
            [] => compact(&self.text[self.at.from..self.at.to], self.has_blanks),
            _ => Cow::Borrowed("null"),
        }
    }

    /// The document with this value here, without the blanks between its parts.
    #[must_use]
    pub fn put(&self, value: &str) -> String {
        let At {
            from,
            to,
            names,
            add,
        } = self.at;
        let before = compact(&self.text[..from], self.has_blanks);
        let behind = compact(&self.text[to..], self.has_blanks);
        let on_the_way: usize = names.iter().map(|name| name.len() + 8).sum();
        let length = before.len() + behind.len() + value.len() + on_the_way;
        let mut out = String::with_capacity(length);
        out.push_str(&before);
        if add == Added::Field {
            out.push(',');
        }
        let mut open = 0;
        for (n, name) in names.iter().enumerate() {
            if n > 0 || add == Added::Nothing {
                out.push('{');
                open += 1;
            }
            out.push_str(&JsonString::new(name).0);
            out.push(':');
        }
        out.push_str(value);
        out.extend(std::iter::repeat_n('}', open));
        out.push_str(&behind);
        out
    }
}

/// A part of a document, from one of its marks or values to another, without the blanks between
/// them.
pub(super) fn compact(text: &str, has_blanks: bool) -> Cow<'_, str> {
    if !has_blanks {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'"' => in_string = !in_string,
            b'\\' => escaped = true,
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {
                out.push_str(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}
