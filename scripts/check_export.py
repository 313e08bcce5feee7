#!/usr/bin/env python3
"""Checks an exported model with the library that it was exported for.

  softclip export MODEL --to hugging_face --out FOLDER --check EXPECTED.safetensors
  check_export.py FOLDER EXPECTED.safetensors [--tolerance 1e-4]

Needs transformers or open_clip_torch, and safetensors. FOLDER is a Hugging Face CLIP folder (read with transformers) or, where it has an `open_clip_config.json`, an open_clip one.
EXPECTED holds what softclip computed with the same weights:

  pixel_values    [N, 3, S, S] float32, normalised        image_features [N, D] float32, before normalisation
  input_ids       [M, L] int64                            text_features  [M, D] float32, before normalisation
  logit_scale     the logarithm of the scale (optional)

Its metadata may have `captions`, a JSON list of the M texts: then the folder's tokenizer must give `input_ids` too.
Prints the largest difference of each output, relative to the largest value; exit status 1 above the tolerance.
"""
import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors import safe_open


def read_expected(path):
    """The file's tensors by name, and its captions (none: an empty list)."""
    with safe_open(path, framework="pt") as file:
        captions = json.loads((file.metadata() or {}).get("captions", "[]"))
        return {name: file.get_tensor(name) for name in file.keys()}, captions


def run_transformers(folder, images, ids, captions):
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model, report = CLIPModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for kind, keys in report.items():       # from_pretrained only warns, and leaves missing tensors at random
        if keys:
            sys.exit(f"{folder}: {kind}: {keys}")
    crop = AutoImageProcessor.from_pretrained(folder).crop_size
    if (crop["height"], crop["width"]) != tuple(images.shape[-2:]):
        sys.exit(f"{folder}: the image processor crops to {crop}, pixel_values are {list(images.shape)}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.eval()
    image, text = model.get_image_features(pixel_values=images), model.get_text_features(input_ids=ids)
    return {
        "image_features": getattr(image, "pooler_output", image),           # a tensor before transformers 5
        "text_features": getattr(text, "pooler_output", text),
        "logit_scale": model.logit_scale,
    }, captions and tokenizer(captions, padding="max_length", truncation=True, max_length=ids.shape[1])["input_ids"]


def run_open_clip(folder, images, ids, captions):
    import open_clip

    name = f"local-dir:{folder}"
    model, _ = open_clip.create_model_from_pretrained(name)
    tokens = captions and open_clip.get_tokenizer(name, context_length=ids.shape[1])(captions)
    return {"image_features": model.encode_image(images), "text_features": model.encode_text(ids),
            "logit_scale": model.logit_scale}, tokens


def same_tokens(ids, other):
    """Whether the rows agree up to their end token, the highest of CLIP's ids; what pads them may differ."""
    other = torch.as_tensor(other)
    ends = ids.argmax(-1)
    return torch.equal(ends, other.argmax(-1)) and all(torch.equal(a[:n + 1], b[:n + 1]) for a, b, n in zip(ids, other, ends))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("expected", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference (default 1e-4)")
    args = parser.parse_args()

    expected, captions = read_expected(args.expected)
    missing = {"pixel_values", "input_ids", "image_features", "text_features"} - expected.keys()
    if missing:
        sys.exit(f"{args.expected}: no tensor {', '.join(sorted(missing))}")
    run = run_open_clip if (args.folder / "open_clip_config.json").exists() else run_transformers
    with torch.inference_mode():
        got, tokens = run(args.folder, expected["pixel_values"], expected["input_ids"], captions)

    failed = False
    for name in sorted(got.keys() & expected.keys()):
        ours, theirs = expected[name].double(), got[name].double()
        if ours.numel() != theirs.numel():
            sys.exit(f"{name}: {list(ours.shape)} in {args.expected}, {list(theirs.shape)} from {args.folder}")
        difference = ((ours.view_as(theirs) - theirs).abs().max() / theirs.abs().max()).item()
        ok = difference <= args.tolerance                                    # false for NaN
        failed |= not ok
        print(f"{name:15} {difference:.2e} {'ok' if ok else f'above {args.tolerance:g}'}")
    if captions:
        ok = same_tokens(expected["input_ids"], tokens)
        failed |= not ok
        print(f"{'tokens':15} {'equal' if ok else 'differ'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
