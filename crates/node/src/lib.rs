//! A transactional log: write once, in order; every datastore follows
