//! Every kind of store that this build knows: one line a store. Which ones it knows is chosen by
//! the features of the package.

use onelog_store::Kinds;

/// The kinds of store, in the order in which they are named to people.
pub static KINDS: Kinds = Kinds::new(&[
    #[cfg(feature = "sqlite")]
    &onelog_sqlite::KIND,
    #[cfg(feature = "postgres")]
    &onelog_postgres::KIND,
    #[cfg(feature = "mysql")]
    &onelog_mysql::KIND,
    #[cfg(feature = "redis")]
    &onelog_redis::KIND,
    #[cfg(feature = "search")]
    &onelog_search::KIND,
]);
