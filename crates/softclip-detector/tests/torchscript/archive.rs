//! Writes TorchScript files as `torch.jit.save` does: a module with attributes, its code and extra files.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;

/// An attribute of a module.
pub enum Value {
    /// Size and numbers.
    Tensor(Vec<usize>, Vec<f32>),
    Tensors(Vec<(Vec<usize>, Vec<f32>)>),
    Names(Vec<String>),
    NamesByNumber(Vec<String>),
    /// A submodule.
    Module(Vec<(&'static str, Value)>),
}

/// A tensor of f32.
pub fn tensor(size: &[usize], values: &[f32]) -> Value {
    Value::Tensor(size.into(), values.into())
}

#[derive(Default)]
struct Writer {
    code: String,
    pickle: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Writer {
    fn text(&mut self, text: &str) {
        self.pickle.push(b'X');
        self.pickle.extend((text.len() as u32).to_le_bytes());
        self.pickle.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.pickle.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn int(&mut self, number: usize) {
        self.pickle.push(b'J');
        self.pickle.extend((number as i32).to_le_bytes());
    }

    fn ints(&mut self, numbers: &[usize]) {
        self.pickle.push(b'(');
        numbers.iter().for_each(|n| self.int(*n));
        self.pickle.push(b't');
    }

    fn tensor(&mut self, size: &[usize], values: &[f32]) {
        let strides: Vec<usize> = (0..size.len()).map(|i| size[i + 1..].iter().product()).collect();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.pickle.extend(b"((");
        self.text("storage");
        self.global("torch", "FloatStorage");
        self.text(&self.storages.len().to_string());
        self.text("cpu");
        self.int(values.len());
        self.pickle.extend(b"tQ");
        self.int(0);
        self.ints(size);
        self.ints(&strides);
        self.pickle.push(0x89);
        self.global("collections", "OrderedDict");
        self.pickle.extend(b")RtR");
        self.storages.push(values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }

    /// Writes a value that carries its type.
    fn tagged(&mut self, kind: &str, write: impl FnOnce(&mut Self)) {
        self.global("torch.jit._pickle", "restore_type_tag");
        self.pickle.push(b'(');
        write(self);
        self.text(kind);
        self.pickle.extend(b"tR");
    }

    /// Writes an attribute; its type.
    fn value(&mut self, value: &Value, class: &str) -> String {
        match value {
            Value::Tensor(size, values) => {
                self.tensor(size, values);
                "Tensor".to_owned()
            }
            Value::Tensors(all) => {
                self.global("torch.jit._pickle", "build_tensorlist");
                self.pickle.extend(b"(](");
                all.iter().for_each(|(size, values)| self.tensor(size, values));
                self.pickle.extend(b"etR");
                "List[Tensor]".to_owned()
            }
            Value::Names(names) => {
                self.tagged("List[str]", |writer| {
                    writer.pickle.extend(b"](");
                    names.iter().for_each(|name| writer.text(name));
                    writer.pickle.push(b'e');
                });
                "List[str]".to_owned()
            }
            Value::NamesByNumber(names) => {
                self.tagged("Dict[int, str]", |writer| {
                    writer.pickle.extend(b"}(");
                    for (number, name) in names.iter().enumerate() {
                        writer.int(number);
                        writer.text(name);
                    }
                    writer.pickle.push(b'u');
                });
                "Dict[int, str]".to_owned()
            }
            Value::Module(attributes) => {
                self.module(class, attributes, "");
                format!("__torch__.{class}")
            }
        }
    }

    fn module(&mut self, class: &str, attributes: &[(&str, Value)], forward: &str) {
        self.global("__torch__", class);
        self.pickle.extend(b")\x81}(");
        let mut code = format!("class {class}(Module):\n  __parameters__ = []\n  __buffers__ = []\n");
        for (name, value) in attributes {
            self.text(name);
            let kind = self.value(value, &format!("{class}_{name}"));
            code += &format!("  {name} : {kind}\n");
        }
        code += "  training : bool\n";
        self.text("training");
        self.pickle.push(0x89);
        self.pickle.extend(b"ub");
        if !forward.is_empty() {
            code += &format!("  def forward(self: __torch__.{class},\n    x: Tensor) -> {forward}\n");
        }
        // Classes come before those that have them as attributes.
        self.code += &code;
    }
}

/// A TorchScript file. `forward` is the type of the result, a colon, and the statements, each on an indented line.
pub fn network(forward: &str, attributes: &[(&str, Value)], extra: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.pickle.extend(b"\x80\x02");
    writer.module("Net", attributes, forward);
    writer.pickle.push(b'.');
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, bytes: &[u8]| {
        let method = if name.ends_with(".py") { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        zip.start_file(format!("net/{name}"), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("data.pkl", &writer.pickle);
    writer.storages.iter().enumerate().for_each(|(i, bytes)| add(&format!("data/{i}"), bytes));
    add("code/__torch__.py", writer.code.as_bytes());
    add("constants.pkl", b"\x80\x02).");
    add("version", b"3\n");
    extra.iter().for_each(|(name, text)| add(&format!("extra/{name}"), text.as_bytes()));
    zip.finish().unwrap().into_inner()
}

/// A network that returns `value` whatever it sees.
pub fn constant(size: &[usize], values: &[f32], extra: &[(&str, &str)]) -> Vec<u8> {
    network("Tensor:\n    return self.out", &[("out", tensor(size, values))], extra)
}
