#!/usr/bin/env python3
"""Writes what the reference implementations compute with the models of `make_models.py`.

  outputs.py MODELS [--seed N] [--only NAME ...]

Each folder of MODELS gets `expected.safetensors`, from the model as its own library reads it back (evaluation mode, float32):

  every image model   pixel_values [4, 3, 224, 224], the input, already normalised
  every text model    input_ids [6, L] and attention_mask [6, L]; the captions are in the metadata, as JSON
  CLIP                image_features, text_features [N, D] (projected), image_embeds, text_embeds (normalised),
                      logits_per_image [4, 6], logit_scale (the logarithm)
  BERT, RoBERTa       last_hidden_state [6, L, D], pooler_output [6, D]
  ViT                 last_hidden_state [4, 50, D] (after the last norm), class_token [4, D], pooler_output [4, D]
  ResNet-50           pooled [4, 2048], logits [4, 1000]
"""
import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import open_clip
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

CAPTIONS = [
    "a dog",
    "Two slices of pizza on a white plate, with a fork and a glass of red wine.",
    "zebras grazing in the grass",
    "A man's 3 red double-decker buses don't drive past Big Ben at 10:45; café naïve, 東京!",
    "cat",
    "a photo of a very long sentence that goes on and on " * 9,
]


def pictures(seed):
    """`[4, 3, 224, 224]` in about [-2.5, 2.5]: smooth blobs that differ between images, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(4, 3, 7, 7, generator=generator)
    fine = torch.randn(4, 3, 224, 224, generator=generator)
    return F.interpolate(coarse, size=(224, 224), mode="bicubic") + 0.3 * fine


def clip_outputs(image, text, logit_scale):
    image_embeds, text_embeds = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    return {"image_features": image, "text_features": text, "image_embeds": image_embeds, "text_embeds": text_embeds,
            "logits_per_image": logit_scale.exp() * image_embeds @ text_embeds.T, "logit_scale": logit_scale}


def tokenise(folder, length):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(CAPTIONS, return_tensors="pt", padding=True, truncation=True, max_length=length)
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def load_transformers(folder):
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    problems = {kind: keys for kind, keys in report.items() if keys}
    if any("position_ids" not in str(key) for keys in problems.values() for key in keys):
        raise SystemExit(f"{folder}: {problems}")
    return model.eval()


def hf_clip(folder, images):
    model, tokens = load_transformers(folder), tokenise(folder, 77)
    image = model.get_image_features(pixel_values=images).pooler_output
    text = model.get_text_features(**tokens).pooler_output
    out = model(pixel_values=images, **tokens)
    expected = clip_outputs(image, text, model.logit_scale)
    torch.testing.assert_close(out.logits_per_image, expected["logits_per_image"], rtol=1e-5, atol=1e-5)
    return {"pixel_values": images, **tokens, **expected}


def openclip(folder, images):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    expected = clip_outputs(model.encode_image(images), model.encode_text(ids), model.logit_scale)
    return {"pixel_values": images, "input_ids": ids, "attention_mask": mask, **expected}


def openclip_checkpoint(folder, images):
    model = open_clip.create_model("ViT-B-32", pretrained=str(folder / "epoch_1.pt")).eval()
    ids = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    expected = clip_outputs(model.encode_image(images), model.encode_text(ids), model.logit_scale)
    return {"pixel_values": images, "input_ids": ids, "attention_mask": mask, **expected}


def bert(folder, _images):
    tokens = tokenise(folder, 128)
    out = load_transformers(folder)(**tokens)
    return {**tokens, "last_hidden_state": out.last_hidden_state, "pooler_output": out.pooler_output}


def vit(folder, images):
    out = load_transformers(folder)(pixel_values=images)
    return {"pixel_values": images, "last_hidden_state": out.last_hidden_state, "class_token": out.last_hidden_state[:, 0],
            "pooler_output": out.pooler_output}


def resnet50(folder, images):
    model = torchvision.models.resnet50().eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    pooled = []
    model.avgpool.register_forward_hook(lambda _module, _input, output: pooled.append(output.flatten(1)))
    logits = model(images)
    return {"pixel_values": images, "pooled": pooled[0], "logits": logits}


def reference(folder):
    """The function above that reads this folder; none for a folder of another kind."""
    if (folder / "open_clip_config.json").exists():
        return openclip
    if (folder / "epoch_1.pt").exists():
        return openclip_checkpoint
    if (folder / "config.json").exists():
        kind = json.loads((folder / "config.json").read_text())["model_type"]
        return {"clip": hf_clip, "bert": bert, "roberta": bert, "vit": vit}.get(kind)
    return resnet50 if folder.name == "resnet50" else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", nargs="+")
    args = parser.parse_args()
    images = pictures(args.seed)
    for folder in sorted(p for p in args.models.iterdir() if p.is_dir() and (not args.only or p.name in args.only)):
        read = reference(folder)
        if read is None:
            print(f"{folder.name}: no model that this script knows")
            continue
        with torch.no_grad():
            tensors = {name: tensor.detach().clone().contiguous() for name, tensor in read(folder, images).items()}
        save_file(tensors, folder / "expected.safetensors", metadata={"captions": json.dumps(CAPTIONS)})
        print(folder.name, {name: list(tensor.shape) for name, tensor in tensors.items()}, flush=True)


if __name__ == "__main__":
    main()
