//! Which components are up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All components of a process. A clone is the same list.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// One component, which says itself whether it is ready.
#[derive(Debug, Clone)]
pub struct Component {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a component (`kafka`, `store`), which is not ready until it says so. Register all of them before the admin
    /// listener starts, since those not yet registered are not waited for.
    #[must_use]
    pub fn register(&self, name: &'static str) -> Component {
        let component = Component { name, readiness: self.clone() };
        component.not_ready("starting");
        component
    }

    /// The components that are not ready, and why, by name. Empty: ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|(name, reason)| (*name, reason.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// From now on this component does not keep the process from being ready.
    pub fn ready(&self) {
        self.readiness.lock().remove(self.name);
    }

    /// From now on the process is not ready, for this reason.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name, reason.into());
    }
}
