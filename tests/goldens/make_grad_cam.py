#!/usr/bin/env python3
"""Writes grad_cam.safetensors: heat maps of small models of open_clip and torchvision by autograd and hooks. torch 2.11.0,
torchvision 0.26.0, open_clip 3.3.0.

    make_grad_cam.py GOLDENS

Weights are those that lie in GOLDENS already (make_reference.py).
"""
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from make_reference import SEED, Out, draw, small_clip, small_inputs, small_resnet, uniform

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
# torchvision's weights want ImageNet's.
IMAGENET = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def pixels(name, side):
    """u8 [3, side, side]: blocks of colours with some noise."""
    coarse = (uniform(SEED, f"{name}/blocks", 3 * 16) * 200).reshape(3, 4, 4)
    at = (np.arange(side) * 4) // side
    noise = (uniform(SEED, f"{name}/noise", 3 * side * side) * 55).reshape(3, side, side)
    return torch.from_numpy((coarse[:, at][:, :, at] + noise).astype(np.uint8))


def grad_cam(model, module, image, text):
    """y = cos(image, text); alpha_k = mean of dy/dA_k over places; relu(sum_k alpha_k A_k), divided by its largest value."""
    kept = {}
    handle = module.register_forward_hook(lambda _m, _i, out: kept.update(values=out))
    cosine = F.cosine_similarity(model.encode_image(image)[0], text, dim=0)
    handle.remove()
    (gradient,) = torch.autograd.grad(cosine, kept["values"])
    values, gradient = kept["values"].detach()[0], gradient[0]
    if values.ndim == 2:                              # class token and patches, [1 + h w, C]
        side = round((len(values) - 1) ** 0.5)
        values, gradient = (x[1:].reshape(side, side, -1).permute(2, 0, 1) for x in (values, gradient))
    raw = sum(g.mean() * v for g, v in zip(gradient, values)).relu()
    return (raw / raw.max() if raw.max() > 0 else raw), cosine.detach()


class Headed(torch.nn.Module):
    """torchvision's ResNet with a projection instead of its classifier."""

    def __init__(self, trunk, proj):
        super().__init__()
        self.trunk, self.proj = trunk, proj
        self.trunk.fc = torch.nn.Identity()

    def encode_image(self, image):
        return self.trunk(image) @ self.proj.T


def golden_weights(folder, name):
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / f"{name}.weights.safetensors").items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {}
    for key, layers in [("rn50", ["visual.layer3", "visual.layer4"]),
                        ("vit_b_32", ["visual.transformer.resblocks.1.ln_1", "visual.transformer.resblocks.0"]),
                        ("vit_l_14", ["visual.transformer.resblocks.2.ln_1"])]:
        model = small_clip(key)
        model.load_state_dict(golden_weights(folder, f"openclip_{key}_small"))
        model.eval()
        image, text = small_inputs(key, SEED)
        seen = pixels(f"grad_cam/{key}", image.shape[-1])
        with torch.no_grad():
            texts = F.normalize(model.encode_text(text), dim=-1)
        found[f"{key}/pixels"], found[f"{key}/texts"] = seen, texts
        modules = dict(model.named_modules())
        for layer in layers:
            maps = [grad_cam(model, modules[layer], (seen[None].float() / 255 - MEAN) / STD, t) for t in texts]
            found[f"{key}/{layer}"] = torch.stack([m for m, _ in maps])
            found[f"{key}/cosines"] = torch.stack([c for _, c in maps])

    trunk = small_resnet()
    trunk.load_state_dict(golden_weights(folder, "resnet50_small"))
    proj = torch.from_numpy(draw(SEED, "grad_cam/resnet50/proj", (12, 128)))
    model = Headed(trunk, proj).eval()
    seen = pixels("grad_cam/resnet50", 64)
    texts = F.normalize(torch.from_numpy(draw(SEED, "grad_cam/resnet50/texts", (5, 12))), dim=-1)
    found["resnet50/pixels"], found["resnet50/texts"], found["resnet50/proj"] = seen, texts, proj
    for layer in ["layer3", "layer4"]:
        mean, std = IMAGENET
        maps = [grad_cam(model, getattr(trunk, layer), (seen[None].float() / 255 - mean) / std, t) for t in texts]
        found[f"resnet50/visual.trunk.{layer}"] = torch.stack([m for m, _ in maps])
        found["resnet50/cosines"] = torch.stack([c for _, c in maps])
    Out(folder, SEED).tensors("grad_cam", found)
