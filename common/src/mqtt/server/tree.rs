//! Subscriptions by topic filter: a tree with one level of the filter for each level of the tree.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::api::SessionId;
use crate::mqtt::packet::{SubscriptionOptions, TopicFilter};

/// One session's plain subscription at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub session: SessionId,
    pub options: SubscriptionOptions,
    pub identifier: Option<NonZeroU32>,
}

#[derive(Default)]
struct Node {
    /// Keys are levels as written: `+` and `#` are children like others.
    children: HashMap<Box<str>, Node>,
    subscribers: Vec<Subscriber>,
    /// Shared subscriptions with this filter, each under its whole filter `$share/NAME/FILTER`.
    groups: Vec<TopicFilter>,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.children.is_empty() && self.subscribers.is_empty() && self.groups.is_empty()
    }
}

/// What matches a topic name.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Matches {
    pub subscribers: Vec<Subscriber>,
    pub groups: Vec<TopicFilter>,
}

/// The tree.
#[derive(Default)]
pub(super) struct SubscriptionTree {
    root: Node,
}

impl SubscriptionTree {
    fn node(&mut self, filter: &str) -> &mut Node {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node
    }

    /// Adds or replaces one session's plain subscription.
    pub(super) fn insert(&mut self, filter: &str, subscriber: Subscriber) {
        let subscribers = &mut self.node(filter).subscribers;
        match subscribers.iter_mut().find(|other| other.session == subscriber.session) {
            Some(other) => *other = subscriber,
            None => subscribers.push(subscriber),
        }
    }

    /// Removes one session's plain subscription, if it is there.
    pub(super) fn remove(&mut self, filter: &str, session: SessionId) {
        prune(&mut self.root, filter.split('/'), &mut |node| {
            node.subscribers.retain(|subscriber| subscriber.session != session);
        });
    }

    /// Adds a shared subscription's filter, if it is not there.
    pub(super) fn insert_group(&mut self, group: &TopicFilter) {
        let groups = &mut self.node(group.matched()).groups;
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }

    /// Removes a shared subscription's filter, if it is there.
    pub(super) fn remove_group(&mut self, group: &TopicFilter) {
        prune(&mut self.root, group.matched().split('/'), &mut |node| {
            node.groups.retain(|other| other != group);
        });
    }

    /// Everything whose filter matches the topic name (section 4.7).
    pub(super) fn matches(&self, topic: &str) -> Matches {
        let mut found = Matches::default();
        // [MQTT-4.7.2-1]: wildcards at the first level do not match `$...`.
        collect(&self.root, topic.split('/'), !topic.starts_with('$'), &mut found);
        found
    }
}

/// Changes the node of a filter and removes nodes that are then unused.
fn prune<'a>(
    node: &mut Node,
    mut levels: impl Iterator<Item = &'a str>,
    change: &mut dyn FnMut(&mut Node),
) {
    // The recursion is as deep as a filter has levels, which `MQTT_TOPIC_LEVELS` bounds.
    fn step(
        node: &mut Node,
        levels: &mut dyn Iterator<Item = &str>,
        change: &mut dyn FnMut(&mut Node),
    ) {
        let Some(level) = levels.next() else { return change(node) };
        if let Some(child) = node.children.get_mut(level) {
            step(child, levels, change);
            if child.is_unused() {
                node.children.remove(level);
            }
        }
    }
    step(node, &mut levels, change);
}

fn collect<'a>(
    node: &Node,
    mut levels: impl Iterator<Item = &'a str> + Clone,
    wildcards: bool,
    found: &mut Matches,
) {
    let take = |node: &Node, found: &mut Matches| {
        found.subscribers.extend_from_slice(&node.subscribers);
        found.groups.extend_from_slice(&node.groups);
    };
    if wildcards && let Some(child) = node.children.get("#") {
        // `a/#` also matches `a` itself.
        take(child, found);
    }
    let Some(level) = levels.next() else { return take(node, found) };
    if let Some(child) = node.children.get(level) {
        collect(child, levels.clone(), true, found);
    }
    if wildcards && let Some(child) = node.children.get("+") {
        collect(child, levels, true, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Subscriber, SubscriptionTree};
    use crate::mqtt::packet::{SubscriptionOptions, TopicFilter, topic_matches_filter};
    use crate::mqtt::server::SessionId;

    fn subscriber(session: u64) -> Subscriber {
        Subscriber {
            session: SessionId(session),
            options: SubscriptionOptions::default(),
            identifier: None,
        }
    }

    fn sessions(tree: &SubscriptionTree, topic: &str) -> Vec<u64> {
        let mut found: Vec<u64> =
            tree.matches(topic).subscribers.iter().map(|s| s.session.0).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_removed_subscription_leaves_no_nodes() {
        let mut tree = SubscriptionTree::default();
        tree.insert("a/+/#", subscriber(1));
        tree.insert("a", subscriber(2));
        tree.remove("a/+/#", SessionId(1));
        assert_eq!(sessions(&tree, "a/b/c"), Vec::<u64>::new());
        tree.remove("a", SessionId(2));
        assert!(tree.root.is_unused());
        let group = TopicFilter::new("$share/g/a/b").expect("valid");
        tree.insert_group(&group);
        assert_eq!(tree.matches("a/b").groups, std::slice::from_ref(&group));
        tree.remove_group(&group);
        assert!(tree.root.is_unused());
    }

    #[test]
    fn subscribing_again_replaces() {
        let mut tree = SubscriptionTree::default();
        tree.insert("a", subscriber(1));
        tree.insert("a", subscriber(1));
        assert_eq!(sessions(&tree, "a"), [1]);
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_matching_one_by_one_finds(
            filters in prop::collection::vec("(\\$?[ab]|\\+|)(/([ab]|\\+|)){0,3}(/#)?", 1..8),
            topic in "\\$?[ab](/[ab]?){0,4}",
        ) {
            let mut tree = SubscriptionTree::default();
            let mut expected = Vec::new();
            for (index, filter) in filters.iter().enumerate() {
                let session = index as u64;
                if TopicFilter::new(filter).is_ok() {
                    tree.insert(filter, subscriber(session));
                    if topic_matches_filter(&topic, filter) {
                        expected.push(session);
                    }
                }
            }
            prop_assert_eq!(sessions(&tree, &topic), expected);
        }
    }
}
