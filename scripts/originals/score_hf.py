#!/usr/bin/env python3
"""Scores the (image, caption) pairs of a CSV with a CLIP model of Hugging Face's transformers.

  score_hf.py MODEL PAIRS.csv OUT.csv [--batch 32] [--image-processor default|pil|torchvision] [--timings]

MODEL is a folder as `save_pretrained` writes it. PAIRS.csv has columns `image` (relative to the CSV) and `caption`; OUT.csv
gets both with `cosine` and `logit` (the cosine times the model's scale).
"""
import argparse
import csv
import time
from pathlib import Path

start = time.perf_counter()
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

spent = {"import": time.perf_counter() - start, "load": 0.0, "preprocess": 0.0, "towers": 0.0}


class timed:
    """Adds the time of a `with` block to `spent[part]`."""

    def __init__(self, part):
        self.part = part

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *_):
        spent[self.part] += time.perf_counter() - self.start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-processor", choices=["default", "pil", "torchvision"], default="default")
    parser.add_argument("--timings", action="store_true", help="print the seconds of each part")
    args = parser.parse_args()

    with timed("load"):
        backend = {} if args.image_processor == "default" else {"backend": args.image_processor}
        model = CLIPModel.from_pretrained(args.model).eval()
        processor = CLIPProcessor.from_pretrained(args.model, **backend)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.to(device)

    with open(args.pairs, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    cosines = []
    with torch.inference_mode():
        for first in range(0, len(rows), args.batch):
            batch = rows[first:first + args.batch]
            with timed("preprocess"):
                images = [Image.open(args.pairs.parent / row["image"]).convert("RGB") for row in batch]
                captions = [row["caption"] for row in batch]
                inputs = processor(text=captions, images=images, return_tensors="pt", padding=True, truncation=True).to(device)
            with timed("towers"):
                image = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
                text = model.get_text_features(inputs["input_ids"], attention_mask=inputs["attention_mask"]).pooler_output
                cosines += torch.nn.functional.cosine_similarity(image, text).tolist()
        scale = model.logit_scale.exp().item()

    with open(args.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "cosine", "logit"])
        for row, cosine in zip(rows, cosines):
            writer.writerow([row["image"], row["caption"], f"{cosine:.6f}", f"{scale * cosine:.6f}"])
    if args.timings:
        print(type(processor.image_processor).__name__, " ".join(f"{part} {seconds:.2f}s" for part, seconds in spent.items()))


if __name__ == "__main__":
    main()
