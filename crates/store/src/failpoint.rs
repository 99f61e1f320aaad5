//! Named places at which a test can make the process stop or something fail. Without the feature
//! `failpoints` a place costs nothing.

#[cfg(feature = "failpoints")]
mod active {
    use std::collections::HashMap;
    use std::sync::Arc;

    use parking_lot::Mutex;

    type Action = Arc<dyn Fn() + Send + Sync>;
    static ACTIONS: Mutex<Option<HashMap<String, Action>>> = Mutex::new(None);

    /// Runs `action` whenever a thread comes to the place `name`, until [`clear`] is called.
    pub fn set(name: &str, action: impl Fn() + Send + Sync + 'static) {
        let mut actions = ACTIONS.lock();
        actions
            .get_or_insert_default()
            .insert(name.to_owned(), Arc::new(action));
    }

    /// Forgets the action at the place `name`.
    pub fn clear(name: &str) {
        if let Some(actions) = ACTIONS.lock().as_mut() {
            actions.remove(name);
        }
    }

    /// The place `store:event`: a store's own event, or the event in any store.
    pub fn hit(store: &str, event: &str) {
        let action = {
            let actions = ACTIONS.lock();
            let find = |name: &str| actions.as_ref().and_then(|known| known.get(name)).cloned();
            find(&format!("{store}:{event}")).or_else(|| find(event))
        };
        if let Some(action) = action {
            action();
        }
    }
}

#[cfg(feature = "failpoints")]
pub use active::{clear, set};

/// Comes to the place `event` in the work of the sink `store`.
#[inline]
pub fn hit(store: &str, event: &str) {
    #[cfg(feature = "failpoints")]
    active::hit(store, event);
    #[cfg(not(feature = "failpoints"))]
    let _ = (store, event);
}
