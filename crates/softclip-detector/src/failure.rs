//! What TorchScript's interpreter says when an operation fails, in one line and with a remedy.

use softclip_tensor::Precision;
use tch::Device;

use crate::metadata::Metadata;

/// What is known of a pass that failed.
pub(crate) struct Pass<'a> {
    /// Size of the inputs `[B, H, W, 3]`.
    pub(crate) size: &'a [i64],
    pub(crate) precision: Precision,
    pub(crate) device: Device,
    pub(crate) metadata: &'a Metadata,
}

/// The cause in libtorch's message: the text after the last `…Error:`, since a traceback precedes it. Without one,
/// the first line.
pub(crate) fn cause(message: &str) -> &str {
    let lines = || message.lines().map(str::trim).filter(|line| !line.is_empty());
    let unnamed = || if message.contains("TorchScript interpreter") { lines().next_back() } else { lines().next() };
    lines().filter_map(raised).next_back().or_else(unnamed).unwrap_or("no message")
}

/// The text after `SomeError:` at the beginning of a line.
fn raised(line: &str) -> Option<&str> {
    let (class, cause) = line.split_once(':')?;
    let is_name = class.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    let is_error = ["Error", "Exception"].iter().any(|end| class.ends_with(end));
    (is_name && is_error && !cause.trim().is_empty()).then(|| cause.trim())
}

impl Pass<'_> {
    /// What to do about a cause; empty if that is not known.
    pub(crate) fn remedy(&self, cause: &str) -> String {
        let has = |words: &[&str]| words.iter().any(|word| cause.to_lowercase().contains(word));
        if has(&["same device", "cuda", "gpu", "device type"]) {
            return self.device_remedy();
        }
        if has(&["scalar type", "dtype", "should be the same", "same type", "not implemented for '", "half", "bfloat16"]) {
            return self.precision_remedy();
        }
        if has(&["size", "shape", "must match", "dimension", "channels", "broadcast"]) {
            return self.size_remedy();
        }
        String::new()
    }

    fn device_remedy(&self) -> String {
        match self.device {
            Device::Cpu => "the export holds tensors of a GPU: run it with --device cuda, or export it on a CPU".to_owned(),
            _ => "the export holds tensors of a CPU: run it with --device cpu, or export it on a GPU".to_owned(),
        }
    }

    fn precision_remedy(&self) -> String {
        match (self.metadata.fp16, self.precision) {
            (true, Precision::Fp32) => "its weights are fp16: run it with --precision fp16".to_owned(),
            (true, _) => "its weights are fp16: run it with --device cuda, or export it without --half".to_owned(),
            (false, Precision::Fp32) => "run it with --precision fp16".to_owned(),
            (false, _) => "run it with --precision fp32".to_owned(),
        }
    }

    fn size_remedy(&self) -> String {
        let (batch, height, width) = (self.size[0], self.size[1], self.size[2]);
        let traced = self.metadata.traced.as_deref().and_then(|shape| match shape {
            &[batch, _, height, width] => Some((batch as i64, height as i64, width as i64)),
            _ => None,
        });
        match traced {
            Some((_, h, w)) if (h, w) != (height, width) && h == w => {
                format!(
                    "it was traced with inputs of {h} x {w} pixels: set `letterbox.size: {h}` in the settings (--detector-config)"
                )
            }
            Some((1, h, w)) if (h, w) == (height, width) && batch > 1 => {
                "it was traced with one image: run it with --batch-size 1".to_owned()
            }
            _ if batch > 1 => {
                "set `letterbox.size` in the settings (--detector-config) to the size that it was exported for; if it was traced \
                 with one image, run it with --batch-size 1"
                    .to_owned()
            }
            _ => "set `letterbox.size` in the settings (--detector-config) to the size that it was exported for".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEBACK: &str = "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript, serialized code \
        (most recent call last):\n  File \"code/__torch__.py\", line 10, in forward\n    _0 = torch.add(a, b)\n         ~~~~~~~~~ <--- \
        HERE\n\nTraceback of TorchScript, original code (most recent call last):\n/x/yolo.py(64): forward\nRuntimeError: The size of \
        tensor a (40) must match the size of tensor b (80) at non-singleton dimension 3\n";

    #[test]
    fn the_cause_is_what_the_operation_raised() {
        assert_eq!(
            cause(TRACEBACK),
            "The size of tensor a (40) must match the size of tensor b (80) at non-singleton dimension 3"
        );
        let listed = "The following operation failed in the TorchScript interpreter.\nTraceback…\nNotImplementedError: Could not run \
                      'aten::empty' with arguments from the 'CUDA' backend. More.\n\nCPU: registered at x.cpp:1 [kernel]\n";
        assert_eq!(cause(listed), "Could not run 'aten::empty' with arguments from the 'CUDA' backend. More.");
        assert_eq!(cause("The following operation failed in the TorchScript interpreter.\nno class\n\n"), "no class");
        assert_eq!(
            cause("mat1 and mat2 differ\nException raised from x at y.cpp:3\nframe #0: c10::Error::Error(a)"),
            "mat1 and mat2 differ"
        );
        assert_eq!(cause("  \n"), "no message");
    }

    #[test]
    fn each_kind_of_cause_has_its_remedy() {
        let metadata = |traced: Option<Vec<usize>>, fp16| Metadata { traced, fp16, ..Metadata::default() };
        let remedy = |cause: &str, precision, batch, metadata: &Metadata| {
            Pass { size: &[batch, 640, 640, 3], precision, device: Device::Cpu, metadata }.remedy(cause)
        };
        let size = cause(TRACEBACK);
        assert!(remedy(size, Precision::Fp32, 1, &metadata(None, false)).contains("letterbox.size"));
        assert!(remedy(size, Precision::Fp32, 1, &metadata(Some(vec![1, 3, 320, 320]), false)).contains("letterbox.size: 320"));
        assert!(remedy(size, Precision::Fp32, 4, &metadata(Some(vec![1, 3, 640, 640]), false)).contains("--batch-size 1"));
        let dtype = "Input type (float) and bias type (c10::Half) should be the same";
        assert!(remedy(dtype, Precision::Fp32, 1, &metadata(None, true)).contains("--precision fp16"));
        assert!(
            remedy("expected scalar type Float but found Half", Precision::Fp16, 1, &metadata(None, false))
                .contains("--precision fp32")
        );
        let device = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!";
        assert!(remedy(device, Precision::Fp32, 1, &metadata(None, false)).contains("--device cuda"));
        assert_eq!(remedy("stopped by the model", Precision::Fp32, 1, &metadata(None, false)), "");
    }
}
