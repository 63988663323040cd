//! What the owner publishes for readers: the status, made when the first reader asks for it. It must not know from what.

use std::sync::{Arc, LazyLock};

use maglev_api::view;

type Make = Box<dyn FnOnce() -> Arc<view::Status> + Send>;

/// The node at one moment.
#[derive(Debug)]
pub struct Shown {
    /// Grows with each that is published.
    pub generation: u64,
    /// Whether the node serves: cheap to make, and asked for often.
    pub node: view::Node,
    status: LazyLock<Arc<view::Status>, Make>,
}

impl Shown {
    /// `make` runs at most once, on the thread of the reader that asks first.
    pub fn new(generation: u64, node: view::Node, make: impl FnOnce() -> view::Status + Send + 'static) -> Self {
        Self { generation, node, status: LazyLock::new(Box::new(move || Arc::new(make()))) }
    }

    /// The status. With thousands of backends it takes milliseconds to make: not for the workers of the event loop.
    pub fn status(&self) -> Arc<view::Status> {
        Arc::clone(&self.status)
    }
}

impl From<view::Status> for Shown {
    fn from(status: view::Status) -> Self {
        Self::new(0, status.node.clone(), move || status)
    }
}

impl Default for Shown {
    fn default() -> Self {
        Self::from(view::Status::default())
    }
}

/// An answer that is made where it is rendered.
pub struct Made<T>(Box<dyn FnOnce() -> T + Send>);

impl<T> Made<T> {
    /// The answer is what `make` returns.
    pub fn by(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(Box::new(make))
    }

    /// Makes it.
    pub fn make(self) -> T {
        (self.0)()
    }
}

impl<T> std::fmt::Debug for Made<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Made")
    }
}
