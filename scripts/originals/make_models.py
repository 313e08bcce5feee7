#!/usr/bin/env python3
"""Writes full-size models with seeded random weights, in the layouts that the ecosystem's own tools write.

  make_models.py OUT --vocab DIR [--seed N] [--only NAME ...]

Every norm gain, bias and running statistic is non-trivial, so that a swapped or forgotten tensor shows in the outputs;
`outputs.py` writes what the reference implementations compute with them. DIR holds `clip_bpe_simple_vocab_16e6.txt.gz`,
`bert_vocab.txt`, `roberta_vocab.json` and `roberta_merges.txt`.
"""
import argparse
import copy
import gzip
import json
import math
import os
import shutil
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import open_clip
import torch
import torchvision
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import save_file
from transformers import (
    BertConfig, BertModel, BertTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer, RobertaConfig,
    RobertaModel, RobertaTokenizer, ViTConfig, ViTImageProcessor, ViTModel,
)

LOGIT_SCALE = math.log(1 / 0.07)


# ---------------------------------------------------------------------------- weights

def spread(name, shape):
    """(centre, standard deviation) of a parameter or buffer; None for what keeps its value."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("num_batches_tracked", "position_ids", "token_type_ids"):
        return None
    if leaf == "logit_scale":
        return LOGIT_SCALE, 0.0
    if leaf == "running_mean":
        return 0.0, 0.1
    if leaf == "running_var":
        return 1.0, 0.1
    if "position" in name:
        return 0.0, 0.1
    if "embedding" in name and "patch" not in name and len(shape) == 2 or leaf in ("class_embedding", "cls_token"):
        return 0.0, 0.3
    if len(shape) == 4:
        return 0.0, math.sqrt((1 if "patch" in name else 2) / math.prod(shape[1:]))
    if leaf in ("proj", "text_projection"):                          # open_clip: x @ W
        return 0.0, shape[0] ** -0.5
    if len(shape) >= 2:
        return 0.0, shape[-1] ** -0.5
    if leaf.endswith("weight"):
        return (0.4 if name.endswith("bn3.weight") else 1.0), 0.1    # a ResNet block's last norm: bounds the sum over the depth
    return 0.0, 0.05


def randomise(model, seed):
    """Fills every tensor of the model from (seed, its name) and returns the model in evaluation mode."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            rule = spread(name, tuple(tensor.shape))
            if rule is not None:
                centre, std = rule
                generator = torch.Generator().manual_seed(seed << 32 | zlib.crc32(name.encode()))
                tensor.copy_(torch.randn(tensor.shape, generator=generator).mul_(std).add_(centre))
    return model.eval()


# ---------------------------------------------------------------------------- tokenizers

def clip_tokenizer(vocab, folder):
    """CLIP's tokenizer from its list of merges, in the files of the published repositories."""
    text = gzip.open(vocab / "clip_bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8").read()
    merges = text.split("\n")[1:49152 - 256 - 2 + 1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    encoder = open_clip.tokenizer.SimpleTokenizer().encoder
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    encoder = {names.get(token, token): index for token, index in encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(encoder, ensure_ascii=False), encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


# ---------------------------------------------------------------------------- Hugging Face

# embedding, (text width, heads), (vision width, layers, heads, patch)
CLIP = {
    "b32": (512, (512, 8), (768, 12, 12, 32)),
    "b16": (512, (512, 8), (768, 12, 12, 16)),
    "l14": (768, (768, 12), (1024, 24, 16, 14)),
}


def hf_clip_config(size):
    dim, (text, text_heads), (vision, layers, heads, patch) = CLIP[size]
    return CLIPConfig(
        text_config=dict(hidden_size=text, intermediate_size=4 * text, num_attention_heads=text_heads, projection_dim=dim),
        vision_config=dict(hidden_size=vision, intermediate_size=4 * vision, num_hidden_layers=layers, num_attention_heads=heads,
                           patch_size=patch, projection_dim=dim),
        projection_dim=dim)


def hf_clip(folder, vocab, seed, size, shard=None):
    model = randomise(CLIPModel(hf_clip_config(size)), seed)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    processor = CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=clip_tokenizer(vocab, folder))
    processor.save_pretrained(folder)
    # transformers 5 writes processor_config.json; the published repositories have preprocessor_config.json
    processor.image_processor.save_pretrained(folder)


def hf_clip_old(folder, vocab, seed, size):
    """As openai/clip-vit-base-patch32 was published: end token 2 in the configuration, position ids among the tensors."""
    model = randomise(CLIPModel(hf_clip_config(size)), seed)
    model.save_pretrained(folder)
    clip_tokenizer(vocab, folder)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for tower in ("text_model", "vision_model"):
        count = state[f"{tower}.embeddings.position_embedding.weight"].shape[0]
        state[f"{tower}.embeddings.position_ids"] = torch.arange(count)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(bos_token_id=0, eos_token_id=2, pad_token_id=1)
    config.update(text_config_dict=None, vision_config_dict=None, torch_dtype="float32")
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    mean, std = open_clip.constants.OPENAI_DATASET_MEAN, open_clip.constants.OPENAI_DATASET_STD
    images = dict(crop_size=224, do_center_crop=True, do_normalize=True, do_resize=True, image_mean=mean, image_std=std,
                  resample=3, size=224, feature_extractor_type="CLIPFeatureExtractor")
    (folder / "preprocessor_config.json").write_text(json.dumps(images, indent=2) + "\n")


def hf_vit(folder, _vocab, seed):
    config = ViTConfig(patch_size=32, num_attention_heads=12, hidden_act="gelu", layer_norm_eps=1e-12)
    randomise(ViTModel(config), seed).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)


def bert(folder, vocab, seed):
    randomise(BertModel(BertConfig()), seed).save_pretrained(folder)
    shutil.copyfile(vocab / "bert_vocab.txt", folder / "vocab.txt")
    BertTokenizer.from_pretrained(folder, model_max_length=512).save_pretrained(folder)


def roberta(folder, vocab, seed):
    config = RobertaConfig(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    randomise(RobertaModel(config), seed).save_pretrained(folder)
    shutil.copyfile(vocab / "roberta_vocab.json", folder / "vocab.json")
    shutil.copyfile(vocab / "roberta_merges.txt", folder / "merges.txt")
    RobertaTokenizer.from_pretrained(folder, model_max_length=512).save_pretrained(folder)


# ---------------------------------------------------------------------------- torchvision, open_clip

def resnet50(folder, _vocab, seed):
    folder.mkdir(parents=True, exist_ok=True)
    model = randomise(torchvision.models.resnet50(), seed)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def openclip(folder, vocab, seed, name):
    model = randomise(open_clip.create_model(name), seed)
    staging = folder / "tokenizer"
    clip_tokenizer(vocab, staging)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(staging))
    save_for_hf(model, tokenizer, copy.deepcopy(open_clip.get_model_config(name)), folder, safe_serialization=True)
    shutil.rmtree(staging)


def openclip_checkpoint(folder, _vocab, seed, name):
    """A pickled checkpoint as open_clip's trainer writes it, after one step of its AdamW."""
    model = randomise(open_clip.create_model(name), seed).train()
    exclude = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW([
        {"params": [p for n, p in named if exclude(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not exclude(n, p)], "weight_decay": 0.2}], lr=1e-5, betas=(0.9, 0.98), eps=1e-6)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    out = model(images, open_clip.get_tokenizer(name)(["a dog", "two cats"]))
    (out[0] @ out[1].T * out[2]).logsumexp(-1).mean().backward()
    optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {"epoch": 1, "name": "run", "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(checkpoint, folder / "epoch_1.pt")


MODELS = {
    "hf-clip-b32": lambda *a: hf_clip(*a, "b32"),
    "hf-clip-b32-sharded": lambda *a: hf_clip(*a, "b32", shard="150MB"),
    "hf-clip-b32-old": lambda *a: hf_clip_old(*a, "b32"),
    "hf-clip-b16": lambda *a: hf_clip(*a, "b16"),
    "hf-clip-l14": lambda *a: hf_clip(*a, "l14"),
    "hf-vit-b32": hf_vit,
    "bert-base": bert,
    "roberta-base": roberta,
    "resnet50": resnet50,
    "openclip-rn50": lambda *a: openclip(*a, "RN50"),
    "openclip-vit-b-32": lambda *a: openclip(*a, "ViT-B-32"),
    "openclip-vit-b-32-quickgelu": lambda *a: openclip(*a, "ViT-B-32-quickgelu"),
    "openclip-vit-b-16": lambda *a: openclip(*a, "ViT-B-16"),
    "openclip-vit-l-14": lambda *a: openclip(*a, "ViT-L-14"),
    "openclip-checkpoint-vit-b-32": lambda *a: openclip_checkpoint(*a, "ViT-B-32"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20240223)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()
    for name in args.only:
        MODELS[name](args.out / name, args.vocab, args.seed)
        print(name, flush=True)


if __name__ == "__main__":
    main()
