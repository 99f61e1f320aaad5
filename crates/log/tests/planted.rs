//! Planted bugs must be caught.
