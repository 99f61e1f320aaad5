//! Bugs planted on purpose, to prove that the tests find bugs.

/// The module `planted` of a crate with the feature `planted-bugs`: the enum of its bugs, `set` to
/// plant one for the whole process, and `is` to ask at the place of the bug. Without the feature
/// every question is answered `false` at compile time.
#[macro_export]
macro_rules! planted_bugs {
    ($($(#[$about:meta])* $bug:ident = $number:literal,)+) => {
        /// A bug that can be planted, one at a time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Bug {
            /// None: the product as it is.
            None = 0,
            $($(#[$about])* $bug = $number,)+
        }

        #[cfg(feature = "planted-bugs")]
        static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

        /// Plants `bug` for the whole process, in place of the one planted before.
        #[cfg(feature = "planted-bugs")]
        pub fn set(bug: Bug) {
            PLANTED.store(bug as u8, std::sync::atomic::Ordering::SeqCst);
        }

        #[cfg(feature = "planted-bugs")]
        pub(crate) fn is(bug: Bug) -> bool {
            PLANTED.load(std::sync::atomic::Ordering::SeqCst) == bug as u8
        }

        #[cfg(not(feature = "planted-bugs"))]
        pub(crate) const fn is(_bug: Bug) -> bool {
            false
        }
    };
}
