//! Object storage: where it is (`url`), how to get at it (`location`: environment, credentials), whether it answers (`watched`), listings
//! that end (`paged`), answers that do (`bounded`).
//!
//! Who uses it: the store on an object store (`store::slate`) and the archive of `tiered` topics (`tier`), each under its own path.
//!
//! **Invariant:** credentials, region and endpoint come from the environment by their AWS names only, and are never logged.

mod bounded;
#[cfg(test)]
pub(crate) mod bucket;
#[cfg(test)]
pub(crate) mod faulty;
mod location;
mod paged;
mod url;
mod watched;

pub use location::{Location, check_environment, locate, locate_source, told};
#[cfg(test)]
pub(crate) use paged::Paged;
pub use url::ObjectStoreUrl;
pub use watched::{Health, Watched};
