//! The stack machine: instructions of pickle protocols 2 to 5, as `torch.save` writes them.

use std::collections::HashMap;

use super::calls::{self, Global};
use super::fail;
use super::values::{Budget, Object, Value, Values};
use crate::error::Result;

/// A pickle that has run to its end.
pub(super) struct Done<'a> {
    pub(super) values: Values<'a>,
    pub(super) root: Value<'a>,
    /// Where the next byte after it is.
    pub(super) end: usize,
}

/// Runs the pickle that begins at byte `start`, as far as the budget lasts.
///
/// # Errors
/// With the offset of the instruction at fault.
pub(super) fn run<'a>(bytes: &'a [u8], start: usize, budget: &'a Budget) -> Result<Done<'a>> {
    let mut machine = Machine {
        bytes,
        at: start,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        values: Values::new(budget),
    };
    loop {
        let at = machine.at;
        let root = machine.step().map_err(|e| e.at(at as u64))?;
        if let Some(root) = root {
            return Ok(Done {
                values: machine.values,
                root,
                end: machine.at,
            });
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    values: Values<'a>,
}

impl<'a> Machine<'a> {
    /// One instruction; the value, at the last.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        self.values.budget.charge(1)?;
        let code = self.take(1)?[0];
        let value = match code {
            b'.' => return self.pop().map(Some),
            // PROTO
            0x80 => {
                let version = self.take(1)?[0];
                return match version {
                    2..=5 => Ok(None),
                    _ => Err(fail(format!(
                        "pickle protocol {version}; 2 to 5 can be read"
                    ))),
                };
            }
            // FRAME
            0x95 => {
                self.take(8)?;
                return Ok(None);
            }
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(None);
            }
            b'0' => {
                self.pop()?;
                return Ok(None);
            }
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.take(1)?[0])),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            0x8a => {
                let len = usize::from(self.take(1)?[0]);
                self.long(len)?
            }
            0x8b => {
                let len = self.length(4)?;
                self.long(len)?
            }
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            // Texts of Python 2, which may be any bytes.
            b'U' => self.text_or_bytes(1)?,
            b'T' => self.text_or_bytes(4)?,
            b'C' => self.raw(1)?,
            b'B' => self.raw(4)?,
            // BINBYTES8, BYTEARRAY8
            0x8e | 0x96 => self.raw(8)?,
            b')' => self.values.add(Object::Tuple(Vec::new())),
            b']' => self.values.add(Object::List(Vec::new())),
            b'}' => self.values.add(Object::Dict(Vec::new())),
            b't' => {
                let items = self.take_to_mark()?;
                self.values.add(Object::Tuple(items))
            }
            0x85..=0x87 => {
                let items = self.last(usize::from(code - 0x84))?;
                self.values.add(Object::Tuple(items))
            }
            0x8f => {
                let class = calls::global("builtins", "set")?;
                self.values.add(Object::Opaque(class))
            }
            // FROZENSET
            0x91 => {
                self.take_to_mark()?;
                let class = calls::global("builtins", "frozenset")?;
                self.values.add(Object::Opaque(class))
            }
            b'a' => {
                let item = self.pop()?;
                return self.append(vec![item]);
            }
            // APPENDS, ADDITEMS
            b'e' | 0x90 => {
                let items = self.take_to_mark()?;
                return self.append(items);
            }
            b's' => {
                let pair = self.last(2)?;
                return self.set(&pair);
            }
            b'u' => {
                let items = self.take_to_mark()?;
                return self.set(&items);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Value::Global(calls::global(module, name)?)
            }
            // STACK_GLOBAL
            0x93 => match self.last(2)?[..] {
                [Value::Text(module), Value::Text(name)] => {
                    Value::Global(calls::global(module, name)?)
                }
                _ => return Err(fail("a global whose name is no text")),
            },
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let args = self.pop()?;
                self.callee()?.call(&mut self.values, args)?
            }
            b'b' => return self.build(),
            b'Q' => {
                let id = self.pop()?;
                let storage = calls::storage(&self.values, id)?;
                self.values.add(Object::Storage(storage))
            }
            b'q' => {
                let slot = u32::from(self.take(1)?[0]);
                return self.remember(slot);
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                return self.remember(slot);
            }
            // MEMOIZE
            0x94 => {
                let slot = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                return self.remember(slot);
            }
            b'h' => {
                let slot = u32::from(self.take(1)?[0]);
                self.recall(slot)?
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?
            }
            other => {
                return Err(fail(format!(
                    "pickle instruction {other:#04x}, which no weights need"
                )));
            }
        };
        self.stack.push(value);
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(found) = rest.get(..len) else {
            return Err(fail(format!(
                "the pickle ends here: {len} bytes are needed, {} are left",
                rest.len()
            )));
        };
        self.at += len;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A length of so many bytes.
    fn length(&mut self, bytes: usize) -> Result<usize> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        let length = u64::from_le_bytes(wide);
        usize::try_from(length).map_err(|_| fail(format!("a length of {length} bytes")))
    }

    fn raw(&mut self, bytes: usize) -> Result<Value<'a>> {
        let len = self.length(bytes)?;
        Ok(Value::Bytes(self.take(len)?))
    }

    fn text_or_bytes(&mut self, bytes: usize) -> Result<Value<'a>> {
        let len = self.length(bytes)?;
        let raw = self.take(len)?;
        Ok(std::str::from_utf8(raw).map_or(Value::Bytes(raw), Value::Text))
    }

    fn text(&mut self, bytes: usize) -> Result<Value<'a>> {
        match self.text_or_bytes(bytes)? {
            Value::Bytes(_) => Err(fail("a text that is not valid UTF-8")),
            text => Ok(text),
        }
    }

    /// An integer of so many bytes, in two's complement.
    fn long(&mut self, len: usize) -> Result<Value<'a>> {
        let raw = self.take(len)?;
        if len > 8 {
            return Ok(Value::Bytes(raw));
        }
        let negative = raw.last().is_some_and(|&top| top & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..len].copy_from_slice(raw);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    /// A text up to the end of its line.
    fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = (rest.iter().position(|&byte| byte == b'\n'))
            .ok_or_else(|| fail("a global's name without an end"))?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| fail("a global's name is not valid UTF-8"))
    }

    /// The stack's height below which an instruction must not reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        match self.stack.pop() {
            Some(value) if self.stack.len() >= self.floor() => Ok(value),
            _ => Err(fail("an instruction without a value to work on")),
        }
    }

    fn last(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let start = self.stack.len().checked_sub(count);
        match start.filter(|&start| start >= self.floor()) {
            Some(start) => Ok(self.stack.split_off(start)),
            None => Err(fail("an instruction without a value to work on")),
        }
    }

    fn take_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| fail("no mark on the stack"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn top(&self) -> Result<Value<'a>> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| fail("an instruction without a value to work on"))
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<Option<Value<'a>>> {
        let top = self.top()?;
        match self.values.object_mut(top) {
            Some(Object::List(list)) => list.extend(items),
            Some(Object::Opaque(_)) => {}
            _ => return Err(fail(format!("items for {}", self.values.kind(top)))),
        }
        Ok(None)
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<Option<Value<'a>>> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(fail("a key without a value"));
        }
        let top = self.top()?;
        match self.values.object_mut(top) {
            Some(Object::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Some(Object::Opaque(_)) => {}
            _ => return Err(fail(format!("entries for {}", self.values.kind(top)))),
        }
        Ok(None)
    }

    fn callee(&mut self) -> Result<Global> {
        match self.pop()? {
            Value::Global(global) => Ok(global),
            other => Err(fail(format!("a call of {}", self.values.kind(other)))),
        }
    }

    /// Attributes of the object below: a namespace's are its entries; those of state dictionaries (their
    /// format's version) and of what is skipped do not matter.
    fn build(&mut self) -> Result<Option<Value<'a>>> {
        let state = self.pop()?;
        let top = self.top()?;
        match self.values.object(top) {
            Some(Object::Dict(dict)) if dict.is_empty() => {
                let attributes = self.values.dict(state).unwrap_or_default();
                self.values.budget.charge(attributes.len())?;
                let attributes = attributes.to_vec();
                if let Some(Object::Dict(dict)) = self.values.object_mut(top) {
                    *dict = attributes;
                }
            }
            Some(Object::Dict(_) | Object::Opaque(_)) => {}
            _ => return Err(fail(format!("attributes for {}", self.values.kind(top)))),
        }
        Ok(None)
    }

    fn remember(&mut self, slot: u32) -> Result<Option<Value<'a>>> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(None)
    }

    fn recall(&mut self, slot: u32) -> Result<Value<'a>> {
        let found = self.memo.get(&slot).copied();
        found.ok_or_else(|| fail(format!("nothing was remembered as {slot}")))
    }
}
