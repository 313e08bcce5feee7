//! The values of a pickle, read as data.
//!
//! Python's `pickle` imports and calls what a file names. This reader has no functions to call: it knows the few
//! constructors that TorchScript's serializer writes and keeps everything else as [`Value::Other`].

use super::tensor::Stored;

/// Largest number of values of one pickle. Files of detectors have some thousands.
const MAX_VALUES: usize = 1 << 21;

/// Index of a value in its [`Pickle`].
pub(super) type Id = usize;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Int(i64),
    Float(f64),
    Text(String),
    /// A class or function: module and name.
    Global(String, String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// An instance with its state, mostly a [`Value::Dict`] of its attributes.
    Object(Option<Id>),
    /// Numbers in a separate file: name of their type, and the file.
    Storage(String, String),
    Tensor(Stored),
    /// Anything else: it cannot be read without running code.
    Other,
}

/// A parsed pickle: values that refer to each other by number.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a list or tuple.
    pub(super) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::List(elements) | Value::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    pub(super) fn number(&self, id: Id) -> Option<f64> {
        match self.get(id) {
            Value::Int(x) => Some(*x as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// Parses a pickle of protocol 2 to 5.
    ///
    /// # Errors
    /// The bytes end early, contain an unknown instruction, or describe too many values.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), memo: Vec::new() };
        let root = machine.run()?;
        Ok(Pickle { values: machine.values, root })
    }
}

#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Value(Id),
}

const SHORT: &str = "the pickle ends in the middle of an instruction";
const UNDERFLOW: &str = "the pickle takes more values than it has";

/// The stack machine whose instructions a pickle consists of.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Slot>,
    memo: Vec<Option<Id>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            match self.take(1)?[0] {
                b'.' => return self.pop(),
                // Protocol and frame lengths.
                0x80 => self.skip(1)?,
                0x95 => self.skip(8)?,
                b'0' => {
                    self.stack.pop();
                }
                b'(' => self.stack.push(Slot::Mark),
                op => self.value(op)?,
            }
        }
    }

    /// Carries out an instruction that makes or changes a value.
    fn value(&mut self, op: u8) -> Result<(), String> {
        match op {
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Int(i64::from(op == 0x88))),
            b'K' => self.int(1),
            b'M' => self.int(2),
            b'J' => {
                let word = self.unsigned(4)? as u32;
                self.push(Value::Int(i64::from(word.cast_signed())))
            }
            0x8a => self.long(),
            b'G' => {
                let bytes = self.take(8)?.try_into().map_err(|_| SHORT)?;
                self.push(Value::Float(f64::from_be_bytes(bytes)))
            }
            b'X' | b'T' => self.string(4),
            0x8c | b'U' => self.string(1),
            0x8d => self.string(8),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(module, name))
            }
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' => {
                let ids = self.pop_to_mark()?;
                self.push(Value::Tuple(ids))
            }
            0x85..=0x87 => {
                let ids = self.pop_many(usize::from(op - 0x84))?;
                self.push(Value::Tuple(ids))
            }
            b'a' | b'e' => {
                let ids = if op == b'a' { self.pop_many(1)? } else { self.pop_to_mark()? };
                self.extend(ids)
            }
            b's' | b'u' => {
                let ids = if op == b's' { self.pop_many(2)? } else { self.pop_to_mark()? };
                self.insert(&ids)
            }
            b'q' => self.memoize(1),
            b'r' => self.memoize(4),
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            0x81 | b'R' => self.call(op == 0x81),
            b'b' => self.build(),
            b'Q' => self.storage(),
            _ => Err(format!("the pickle has the unknown instruction {op:#04x} at byte {}", self.at - 1)),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(SHORT)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Result<(), String> {
        self.take(length).map(|_| ())
    }

    /// A little-endian number of up to eight bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, String> {
        self.unsigned(bytes)?.try_into().map_err(|_| SHORT.to_owned())
    }

    fn line(&mut self) -> Result<String, String> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n').ok_or(SHORT)?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("the pickle has more than {MAX_VALUES} values"));
        }
        self.stack.push(Slot::Value(self.values.len()));
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        match self.stack.pop() {
            Some(Slot::Value(id)) => Ok(id),
            _ => Err(UNDERFLOW.to_owned()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(Slot::Value(id)) => Ok(*id),
            _ => Err(UNDERFLOW.to_owned()),
        }
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut ids = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        ids.reverse();
        Ok(ids)
    }

    /// The values above the last mark, which is removed with them.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let count = self.stack.iter().rev().position(|slot| matches!(slot, Slot::Mark)).ok_or(UNDERFLOW)?;
        let ids = self.pop_many(count)?;
        self.stack.pop();
        Ok(ids)
    }

    fn int(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.unsigned(bytes)?;
        self.push(Value::Int(number.cast_signed()))
    }

    /// An integer of any length; longer ones than 64 bits are nothing that is looked for.
    fn long(&mut self) -> Result<(), String> {
        let length = self.length(1)?;
        if length > 8 {
            self.skip(length)?;
            return self.push(Value::Other);
        }
        let number = self.unsigned(length)?;
        let unused = 64 - 8 * length as u32;
        let number = if length == 0 { 0 } else { (number << unused).cast_signed() >> unused };
        self.push(Value::Int(number))
    }

    fn string(&mut self, length_bytes: usize) -> Result<(), String> {
        let length = self.length(length_bytes)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text))
    }

    fn extend(&mut self, ids: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        if let Value::List(list) = &mut self.values[top] {
            list.extend(ids);
        }
        Ok(())
    }

    fn insert(&mut self, ids: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        if let Value::Dict(dict) = &mut self.values[top] {
            dict.extend(ids.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn memoize(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.length(bytes)?;
        // Numbers are given in order; a larger one than there are bytes would only ask for memory.
        if number > self.bytes.len() {
            return Err(format!("the pickle numbers a value {number}"));
        }
        if self.memo.len() <= number {
            self.memo.resize(number + 1, None);
        }
        self.memo[number] = Some(self.top()?);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.length(bytes)?;
        let id = self.memo.get(number).copied().flatten();
        self.stack.push(Slot::Value(id.ok_or_else(|| format!("the pickle recalls value {number}, which it does not have"))?));
        Ok(())
    }

    /// What a call of a class or function would give, if it is one that only holds data.
    fn call(&mut self, creates: bool) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let arguments = match &self.values[arguments] {
            Value::Tuple(ids) => ids.clone(),
            _ => Vec::new(),
        };
        if creates {
            return self.push(Value::Object(None));
        }
        let Value::Global(module, name) = &self.values[callee] else { return self.push(Value::Other) };
        match (&**module, &**name) {
            ("torch._utils", "_rebuild_tensor_v2") => {
                let tensor = self.tensor(&arguments).map_or(Value::Other, Value::Tensor);
                self.push(tensor)
            }
            // Typed lists, tagged values and parameters are replaced by their first argument.
            (
                "torch.jit._pickle",
                "restore_type_tag" | "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist",
            )
            | ("torch._utils", "_rebuild_parameter") => match arguments.first() {
                Some(first) => {
                    self.stack.push(Slot::Value(*first));
                    Ok(())
                }
                None => self.push(Value::Other),
            },
            ("collections", "OrderedDict") => self.push(Value::Dict(Vec::new())),
            _ => self.push(Value::Other),
        }
    }

    fn tensor(&self, arguments: &[Id]) -> Option<Stored> {
        let &[storage, offset, size, stride, ..] = arguments else { return None };
        let Value::Storage(kind, file) = &self.values[storage] else { return None };
        let natural = |id: Id| match self.values[id] {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let all = |id: Id| match &self.values[id] {
            Value::Tuple(ids) => ids.iter().map(|id| natural(*id)).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        Some(Stored { kind: kind.clone(), file: file.clone(), offset: natural(offset)?, size: all(size)?, stride: all(stride)? })
    }

    fn build(&mut self) -> Result<(), String> {
        let (state, object) = (self.pop()?, self.top()?);
        if let Value::Object(own) = &mut self.values[object] {
            *own = Some(state);
        }
        Ok(())
    }

    /// A reference to something outside the pickle: `('storage', torch.FloatStorage, '0', 'cpu', 1728)`.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts: Vec<&Value> = match &self.values[id] {
            Value::Tuple(ids) => ids.iter().map(|id| &self.values[*id]).collect(),
            _ => Vec::new(),
        };
        let value = match parts[..] {
            [Value::Text(_), Value::Global(_, kind), Value::Text(file), ..] => Value::Storage(kind.clone(), file.clone()),
            _ => Value::Other,
        };
        self.push(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_python_wrote_them() {
        // pickle.dumps({"a": [1, -2, 300, 2.5, None, True], "b": ("x", 1 << 40)}, protocol=2)
        let bytes =
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88e\
                      X\x01\x00\x00\x00bq\x03X\x01\x00\x00\x00xq\x04\x8a\x06\x00\x00\x00\x00\x00\x01\x86q\x05u.";
        let pickle = Pickle::parse(bytes).unwrap();
        let Value::Dict(entries) = pickle.get(pickle.root()) else { panic!("no dictionary") };
        assert_eq!(entries.iter().map(|(key, _)| pickle.text(*key).unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        let list = pickle.elements(entries[0].1).unwrap();
        let numbers: Vec<_> = list.iter().map(|id| pickle.number(*id)).collect();
        assert_eq!(numbers, [Some(1.0), Some(-2.0), Some(300.0), Some(2.5), None, Some(1.0)]);
        let tuple = pickle.elements(entries[1].1).unwrap();
        assert_eq!((pickle.text(tuple[0]), pickle.number(tuple[1])), (Some("x"), Some((1u64 << 40) as f64)));
    }

    #[test]
    fn functions_are_never_called() {
        // What os.system would run.
        let pickle = Pickle::parse(b"cos\nsystem\n(X\x04\x00\x00\x00exittR.").unwrap();
        assert_eq!(*pickle.get(pickle.root()), Value::Other);
        let pickle = Pickle::parse(b"ctorch._utils\n_rebuild_device_tensor\n(K\x01tR.").unwrap();
        assert_eq!(*pickle.get(pickle.root()), Value::Other);
    }

    #[test]
    fn damaged_pickles_are_errors() {
        for bytes in [
            &b""[..],
            b"K",
            b"X\xff\xff\xff\xffa",
            b"u.",
            b"t.",
            b"R.",
            b"b.",
            b"h\x07.",
            b"Nr\xff\xff\xff\xff.",
            b"\xff.",
            b"(.",
            b"ca\nb",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        ] {
            Pickle::parse(bytes).unwrap_err();
        }
    }
}
