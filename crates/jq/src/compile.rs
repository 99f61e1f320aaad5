//! From the text of a program to what the interpreter runs, with the place of every error.
//!
//! Reading a program recurses as deep as its text nests, therefore on a thread of its own with a
//! stack that the longest text cannot exhaust. A definition may not call itself: the interpreter
//! keeps what such calls capture in lists that are dropped recursively, which the limits of a run
//! cannot reach. The loops of the library are counted and capture nothing. The parts of a path are
//! limited as well: the interpreter goes into them without an evaluation that could be counted.

use jaq_core::compile::Undefined;
use jaq_core::load::lex::{Lexer, StrPart, Token};
use jaq_core::load::parse::{BinaryOp, Def, Parser, Pattern, Term};
use jaq_core::load::{Arena, Error as LoadError, File, Loader, span};
use jaq_core::path::{Part, Path};
use jaq_core::{Compiler, Filter};

use super::JqError;
use super::access::cut;
use super::library::{self, FUNCTIONS, Kind};

/// Length of a program's text.
pub const PROGRAM_BYTES_MAX: usize = 16 << 10;
/// Parts of one path, as `.a`, `[0]` and `[]`; no value has half as many levels.
pub const PATH_PARTS_MAX: usize = 256;
/// Enough for a text of the full length that does nothing but nest.
const STACK_BYTES: usize = 512 << 20;

/// The variables of a program, in the order in which a run binds them.
pub(super) const VARIABLES: [&str; 2] = ["$key", "$version"];

pub(super) fn compile(text: &str) -> Result<Filter<Kind>, JqError> {
    if text.len() > PROGRAM_BYTES_MAX {
        return Err(JqError::ProgramTooLong {
            bytes: text.len(),
            max: PROGRAM_BYTES_MAX,
        });
    }
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("onelog-jq-compile".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || compile_here(text))
            .map_err(JqError::Thread)?;
        reader
            .join()
            .unwrap_or_else(|_| Err(JqError::Defect("the program could not be read".to_owned())))
    })
}

fn compile_here(text: &str) -> Result<Filter<Kind>, JqError> {
    check(text)?;
    let arena = Arena::default();
    let file = File {
        code: text,
        path: (),
    };
    let modules = Loader::new(library::definitions())
        .load(&arena, file)
        .map_err(|errors| load_problem(text, errors.into_iter().map(|(_, error)| error)))?;
    Compiler::default()
        .with_funs(library::functions())
        .with_global_vars(VARIABLES)
        .compile(modules)
        .map_err(|errors| {
            let mut undefined = errors.into_iter().flat_map(|(_, errors)| errors);
            match undefined.next() {
                Some((name, kind)) => problem(text, name, undefined_message(name, &kind)),
                None => JqError::Defect("refused without a reason".to_owned()),
            }
        })
}

fn problem(text: &str, at: &str, what: String) -> JqError {
    // A name that is not part of the text (of the library's own) has no place in it.
    let inside = text.as_bytes().as_ptr_range().contains(&at.as_ptr()) || at.is_empty();
    let offset = if inside { span(text, at).start } else { 0 };
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    JqError::Program { line, column, what }
}

fn load_problem<'s>(text: &str, mut errors: impl Iterator<Item = LoadError<&'s str>>) -> JqError {
    match errors.next() {
        Some(LoadError::Io(files)) => {
            let at = files.first().map_or("", |(name, _)| *name);
            problem(text, at, "a program cannot read other files".to_owned())
        }
        _ => JqError::Defect("refused without a reason".to_owned()),
    }
}

fn undefined_message(name: &str, kind: &Undefined) -> String {
    match kind {
        Undefined::Filter(arguments) => unknown_function(name, *arguments),
        Undefined::Var => match library::refusal(name) {
            Some(reason) => format!("the variable {name} is not offered: {reason}"),
            None => format!(
                "unknown variable {name}; a program has {} and those that it binds itself",
                VARIABLES.join(", ")
            ),
        },
        other => format!("unknown {} {name}", other.as_str()),
    }
}

fn unknown_function(name: &str, arguments: usize) -> String {
    if let Some(reason) = library::refusal(name) {
        return format!("the function '{name}' is not offered: {reason}");
    }
    let known = |function: &&'static str| function.rsplit_once('/').map(|(name, _)| name);
    let counts: Vec<&str> = FUNCTIONS
        .iter()
        .filter_map(|function| function.rsplit_once('/'))
        .filter(|(known, _)| *known == name)
        .map(|(_, count)| count)
        .collect();
    if !counts.is_empty() {
        return format!(
            "the function '{name}' takes {} arguments, not {arguments}",
            counts.join(" or ")
        );
    }
    match nearest(name, FUNCTIONS.iter().filter_map(known)) {
        Some(nearest) => format!("unknown function '{name}'; did you mean '{nearest}'?"),
        None => format!("unknown function '{name}'; docs/sinks/programs.md lists all functions"),
    }
}

/// The known name that was probably meant.
fn nearest<'n>(wanted: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let tolerance = (wanted.chars().count() / 3).clamp(1, 4);
    known
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, name)| name)
}

fn check(text: &str) -> Result<(), JqError> {
    let tokens = Lexer::new(text).lex().map_err(|errors| {
        let (expected, at) = errors
            .into_iter()
            .next()
            .unwrap_or((jaq_core::load::lex::Expect::Token, ""));
        let what = format!("expected {} {}", expected.as_str(), found(at));
        problem(text, place(text, at), what)
    })?;
    if let Some(Token(word @ ("import" | "include" | "module"), _)) = tokens.first() {
        let what = format!("'{word}' is not offered: there are no modules");
        return Err(problem(text, word, what));
    }
    let term = Parser::new(&tokens).parse(Parser::term).map_err(|errors| {
        let first = errors.into_iter().next();
        let (what, at) = first.map_or((String::new(), ""), |(expected, token)| {
            let at = Token::opt_as_str(token, text);
            (format!("expected {} {}", expected.as_str(), found(at)), at)
        });
        problem(text, place(text, at), what)
    })?;
    look_through(&term, &mut Vec::new()).map_err(|unfit| match unfit {
        Unusable::CallsItself(name) => {
            let what = format!(
                "the function '{name}' calls itself; use while, until, recurse, reduce or foreach"
            );
            problem(text, name, what)
        }
        Unusable::LongPath(at, parts) => {
            let what = format!(
                "a path may have at most {PATH_PARTS_MAX} parts, this one has {parts}; no value nests as deep"
            );
            problem(text, at.unwrap_or(&text[..0]), what)
        }
    })
}

/// What is wrong with a program that can be read.
enum Unusable<'s> {
    /// A definition is called from inside itself.
    CallsItself(&'s str),
    /// A path has so many parts; with a word where they are too many.
    LongPath(Option<&'s str>, usize),
}

fn found(at: &str) -> String {
    match at.lines().next().unwrap_or_default() {
        "" => "at the end".to_owned(),
        rest => format!("at '{}'", cut(rest)),
    }
}

/// The place of an error: an empty one means the end.
fn place<'s>(text: &'s str, at: &'s str) -> &'s str {
    if at.is_empty() {
        &text[text.len()..]
    } else {
        at
    }
}

/// Finds the first part that must not be run.
fn look_through<'s>(
    term: &Term<&'s str>,
    open: &mut Vec<(&'s str, usize)>,
) -> Result<(), Unusable<'s>> {
    let mut all = |terms: &mut dyn Iterator<Item = &Term<&'s str>>| {
        for term in terms {
            look_through(term, open)?;
        }
        Ok(())
    };
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) => Ok(()),
        Term::Str(_, parts) => all(&mut parts.iter().filter_map(|part| match part {
            StrPart::Term(term) => Some(term),
            StrPart::Str(_) | StrPart::Char(_) => None,
        })),
        Term::Arr(inner) => all(&mut inner.iter().map(|inner| &**inner)),
        Term::Obj(fields) => all(&mut fields
            .iter()
            .flat_map(|(name, value)| std::iter::once(name).chain(value))),
        Term::Neg(inner) | Term::Label(_, inner) => look_through(inner, open),
        Term::BinOp(left, operator, right) => {
            all(&mut [&**left, &**right].into_iter())?;
            match operator {
                BinaryOp::Pipe(Some(pattern)) => look_through_pattern(pattern, open),
                _ => Ok(()),
            }
        }
        Term::Fold(_, source, pattern, inner) => {
            all(&mut std::iter::once(&**source).chain(inner))?;
            look_through_pattern(pattern, open)
        }
        Term::TryCatch(inner, catch) => {
            all(&mut std::iter::once(&**inner).chain(catch.iter().map(|catch| &**catch)))
        }
        Term::IfThenElse(branches, otherwise) => all(&mut branches
            .iter()
            .flat_map(|(condition, then)| [condition, then])
            .chain(otherwise.iter().map(|otherwise| &**otherwise))),
        Term::Def(definitions, inner) => {
            for definition in definitions {
                look_through_definition(definition, open)?;
            }
            look_through(inner, open)
        }
        Term::Call(name, arguments) => {
            if open.contains(&(*name, arguments.len())) {
                return Err(Unusable::CallsItself(name));
            }
            arguments
                .iter()
                .try_for_each(|argument| look_through(argument, open))
        }
        Term::Path(inner, path) => {
            all(&mut std::iter::once(&**inner))?;
            look_through_path(path, open)
        }
    }
}

fn look_through_path<'s>(
    path: &Path<Term<&'s str>>,
    open: &mut Vec<(&'s str, usize)>,
) -> Result<(), Unusable<'s>> {
    let parts = path.0.len();
    if let Some(beyond) = path
        .0
        .get(PATH_PARTS_MAX..)
        .filter(|parts| !parts.is_empty())
    {
        let word = beyond.iter().find_map(|(part, _)| word_of(part));
        return Err(Unusable::LongPath(word, parts));
    }
    path.0.iter().try_for_each(|(part, _)| match part {
        Part::Index(index) => look_through(index, open),
        Part::Range(from, to) => from
            .iter()
            .chain(to)
            .try_for_each(|bound| look_through(bound, open)),
    })
}

/// A word of the text in a part of a path, where it is a simple one.
fn word_of<'s>(part: &Part<Term<&'s str>>) -> Option<&'s str> {
    let of = |term: &Term<&'s str>| match term {
        Term::Num(word) | Term::Var(word) | Term::Call(word, _) => Some(*word),
        Term::Str(_, parts) => parts.iter().find_map(|part| match part {
            StrPart::Str(word) => Some(*word),
            StrPart::Term(_) | StrPart::Char(_) => None,
        }),
        _ => None,
    };
    match part {
        Part::Index(index) => of(index),
        Part::Range(from, to) => from.iter().chain(to).find_map(of),
    }
}

fn look_through_definition<'s>(
    definition: &Def<&'s str>,
    open: &mut Vec<(&'s str, usize)>,
) -> Result<(), Unusable<'s>> {
    open.push((definition.name, definition.args.len()));
    let checked = look_through(&definition.body, open);
    open.pop();
    checked
}

fn look_through_pattern<'s>(
    pattern: &Pattern<&'s str>,
    open: &mut Vec<(&'s str, usize)>,
) -> Result<(), Unusable<'s>> {
    match pattern {
        Pattern::Var(_) => Ok(()),
        Pattern::Arr(parts) => parts
            .iter()
            .try_for_each(|part| look_through_pattern(part, open)),
        Pattern::Obj(fields) => fields.iter().try_for_each(|(name, part)| {
            look_through(name, open)?;
            look_through_pattern(part, open)
        }),
    }
}
