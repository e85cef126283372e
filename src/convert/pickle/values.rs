//! What a pickle makes: numbers, texts, containers, and tensors that point to storages.

use std::cell::Cell;

use super::super::entry::DType;
use super::calls::Global;
use super::{Found, MAX_STEPS, fail};
use crate::artifact::Bytes;
use crate::error::Result;

/// A value: a small one, or the number of an [`Object`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// Bytes, and integers that do not fit 64 bits.
    Bytes(&'a [u8]),
    Global(Global),
    Object(u32),
}

/// What other values may share.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    /// Apart: it is much larger than what a file may hold millions of.
    Tensor(Box<Tensor<'a>>),
    /// The result of a call that is known and whose value does not matter.
    Opaque(Global),
}

/// A run of elements, with its key in the container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: DType,
    /// Elements.
    pub(super) len: usize,
}

/// A view of a storage, within it or not: what stands beside the weights may be any view.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// What else torch says of it, by which its values are not those of the storage.
    pub(super) metadata: Option<String>,
}

impl<'a> Tensor<'a> {
    pub(super) fn new(
        storage: Storage<'a>,
        offset: usize,
        shape: Vec<usize>,
        mut strides: Vec<usize>,
    ) -> Result<Self> {
        if shape.len() != strides.len() {
            return Err(fail(format!(
                "a tensor of {} dimensions with {} strides",
                shape.len(),
                strides.len()
            )));
        }
        for (stride, size) in strides.iter_mut().zip(&shape) {
            // Nothing is ever beside a single element.
            if *size <= 1 {
                *stride = 0;
            }
        }
        Ok(Self {
            storage,
            offset,
            shape,
            strides,
            metadata: None,
        })
    }

    /// Elements, if they can be counted.
    pub(super) fn len(&self) -> Option<usize> {
        (self.shape.iter()).try_fold(1usize, |n, &size| n.checked_mul(size))
    }

    /// Why this is no weight, if an element of it is not in the storage or there are more of them than it has: a
    /// stride of 0 would let a few bytes become any number of elements.
    fn fault(&self) -> Option<String> {
        if let Some(word) = &self.metadata {
            return Some(format!(
                "its values are not those that are stored ({word}): save a copy of it"
            ));
        }
        let mut steps = self.shape.iter().zip(&self.strides);
        let last = steps.try_fold(self.offset, |last, (&size, &stride)| {
            last.checked_add(size.saturating_sub(1).checked_mul(stride)?)
        });
        let of = self.storage.len;
        let fits = match (self.len(), last) {
            (Some(0), _) => true,
            (Some(len), Some(last)) => last < of && len <= of,
            _ => false,
        };
        (!fits).then(|| {
            format!(
                "a tensor of shape {:?} with strides {:?} from element {} does not fit its storage of {of}",
                self.shape, self.strides, self.offset
            )
        })
    }

    /// Counts and generators' states are tensors, too, but weights are neither scalars nor integers.
    pub(super) fn may_be_weight(&self) -> bool {
        self.storage.dtype.is_float() && !self.shape.is_empty()
    }

    /// The tensor in its storage's bytes, as far as it is there.
    pub(super) fn place(&self, name: &str, storage: &Bytes) -> Result<Found> {
        let size = self.storage.dtype.bytes();
        let needed = self.storage.len.checked_mul(size);
        let bytes = (needed.filter(|&needed| needed <= storage.len()))
            // Of a tensor without elements, or one at fault, the offset may be anything.
            .map(|end| (self.offset.saturating_mul(size).min(end), end))
            .and_then(|(start, end)| storage.slice(start..end))
            .ok_or_else(|| {
                fail(format!(
                    "its storage {} has {} bytes, {} elements of {size} are declared",
                    self.storage.key,
                    storage.len(),
                    self.storage.len
                ))
            })?;
        Ok(Found {
            name: name.to_owned(),
            dtype: self.storage.dtype,
            shape: self.shape.clone(),
            strides: self.strides.clone(),
            bytes,
            fault: self.fault(),
        })
    }
}

/// How much more the pickles of a file may make, all together.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Cell::new(MAX_STEPS))
    }

    /// Counts instructions, and what is copied: copies of copies would grow without bound.
    pub(super) fn charge(&self, count: usize) -> Result<()> {
        let left = self.0.get().checked_sub(count);
        let left = left.ok_or_else(|| {
            fail(format!(
                "pickles of more than {MAX_STEPS} instructions and copied values"
            ))
        })?;
        self.0.set(left);
        Ok(())
    }
}

/// All objects of a pickle.
pub(super) struct Values<'a> {
    objects: Vec<Object<'a>>,
    pub(super) budget: &'a Budget,
}

impl<'a> Values<'a> {
    pub(super) fn new(budget: &'a Budget) -> Self {
        Self {
            objects: Vec::new(),
            budget,
        }
    }

    pub(super) fn add(&mut self, object: Object<'a>) -> Value<'a> {
        // There are far fewer instructions than numbers.
        self.objects.push(object);
        Value::Object(u32::try_from(self.objects.len() - 1).unwrap_or(u32::MAX))
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Object<'a>> {
        self.objects.iter()
    }

    pub(super) fn object(&self, value: Value<'_>) -> Option<&Object<'a>> {
        match value {
            Value::Object(number) => self.objects.get(number as usize),
            _ => None,
        }
    }

    pub(super) fn object_mut(&mut self, value: Value<'_>) -> Option<&mut Object<'a>> {
        match value {
            Value::Object(number) => self.objects.get_mut(number as usize),
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: Value<'_>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.object(value) {
            Some(Object::Dict(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The value of a dictionary's key: the last, where it is there twice.
    pub(super) fn entry(&self, dict: Value<'_>, key: &str) -> Option<Value<'a>> {
        let entries = self.dict(dict)?.iter().rev();
        let mut found = entries.filter(|(k, _)| matches!(k, Value::Text(k) if *k == key));
        found.next().map(|(_, value)| *value)
    }

    pub(super) fn sequence(&self, value: Value<'_>) -> Option<&[Value<'a>]> {
        match self.object(value) {
            Some(Object::Tuple(items) | Object::List(items)) => Some(items),
            _ => None,
        }
    }

    /// What a value is, for messages.
    pub(super) fn kind(&self, value: Value<'_>) -> &'static str {
        match (value, self.object(value)) {
            (Value::None, _) => "None",
            (Value::Bool(_), _) => "a truth value",
            (Value::Int(_), _) => "an integer",
            (Value::Float(_), _) => "a number",
            (Value::Text(_), _) => "a text",
            (Value::Bytes(_), _) => "bytes",
            (Value::Global(global), _) => global.name,
            (_, Some(Object::Opaque(global))) => global.name,
            (_, Some(Object::Tuple(_))) => "a tuple",
            (_, Some(Object::List(_))) => "a list",
            (_, Some(Object::Dict(_))) => "a dictionary",
            (_, Some(Object::Storage(_))) => "a storage",
            (_, Some(Object::Tensor(_))) => "a tensor",
            (_, None) => "nothing",
        }
    }
}
