//! Bugs planted on purpose: each must be caught by the checks that the other tests rest on.
