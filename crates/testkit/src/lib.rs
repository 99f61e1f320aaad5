//! Real servers for tests, on free loopback ports, in temporary folders.
