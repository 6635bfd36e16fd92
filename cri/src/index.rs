//! Things by id, or by a unique beginning of one.

use crate::failure::{Failure, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What lives in memory, by id. Reading never waits for anything but another reader's copy of an `Arc`.
#[derive(Debug)]
pub(crate) struct Index<T> {
    noun: &'static str,
    things: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Index<T> {
    /// An empty one; `noun` is what its things are called in errors.
    pub(crate) fn new(noun: &'static str) -> Index<T> {
        Index { noun, things: RwLock::default() }
    }

    pub(crate) fn insert(&self, id: String, thing: Arc<T>) {
        self.things.write().unwrap_or_else(PoisonError::into_inner).insert(id, thing);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.things.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// All, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.things.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The thing with this id, or the only one whose id begins so.
    ///
    /// # Errors
    /// `NotFound`: none. `InvalidArgument`: several, or an empty id.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<T>> {
        if id.is_empty() {
            return Err(Failure::invalid(format!("{} id is empty", self.noun)));
        }
        let things = self.things.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(thing) = things.get(id) {
            return Ok(Arc::clone(thing));
        }
        let mut candidates = things.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
        match (candidates.next(), candidates.next()) {
            (Some((_, thing)), None) => Ok(Arc::clone(thing)),
            (Some((one, _)), Some((other, _))) => {
                Err(Failure::invalid(format!("{} id {id:?} is ambiguous: {one}, {other}", self.noun)))
            }
            (None, _) => Err(Failure::not_found(format!("{} {id:?} does not exist", self.noun))),
        }
    }

    /// As [`Index::get`], but nothing is nothing: for verbs that are to be repeatable.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Arc<T>>> {
        match self.get(id) {
            Ok(thing) => Ok(Some(thing)),
            Err(failure) if failure.code == tonic::Code::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// A new id: 64 hexadecimal digits, as every client expects them.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_beginning_is_enough_and_an_ambiguous_one_names_two() {
        let index = Index::new("container");
        for id in ["aa11", "aa22", "ab"] {
            index.insert(id.into(), Arc::new(id));
        }
        assert_eq!(*index.get("aa1").unwrap(), "aa11");
        assert_eq!(*index.get("ab").unwrap(), "ab");
        let error = index.get("aa").unwrap_err();
        assert_eq!(error.code, tonic::Code::InvalidArgument);
        assert!(error.message.contains("aa11, aa22"), "{error}");
        assert_eq!(index.get("c").unwrap_err().code, tonic::Code::NotFound);
        assert_eq!(index.get("").unwrap_err().code, tonic::Code::InvalidArgument);
        assert!(index.find("c").unwrap().is_none());
    }

    #[test]
    fn an_id_that_begins_another_is_itself() {
        let index = Index::new("sandbox");
        for id in ["a", "ab"] {
            index.insert(id.into(), Arc::new(id));
        }
        assert_eq!(*index.get("a").unwrap(), "a");
    }

    #[test]
    fn ids_are_64_hex_digits() {
        let id = new_id();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    }
}
