//! What a panic says, for errors that must keep it.

use std::any::Any;

/// The message of a panic that was caught; `None` where it has none.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, panic_any};

    use super::*;

    #[test]
    fn a_panic_with_a_fixed_and_with_a_made_message_keeps_it() {
        let of = |panic: fn()| catch_unwind(panic).unwrap_err();
        let fixed = of(|| panic!("fixed"));
        assert_eq!(panic_message(fixed.as_ref()), Some("fixed"));
        let made = of(|| panic!("made of {}", std::process::id()));
        assert!(panic_message(made.as_ref()).is_some_and(|text| text.starts_with("made of ")));
        assert_eq!(panic_message(of(|| panic_any(5)).as_ref()), None);
    }
}
