#!/usr/bin/env python3
"""Writes detectors/*.pt: TorchScript files of the contracts that YOLOv7's exporter knows, as small as can be. torch 2.11.0.

    make_detectors.py OUT

Cells of an input, 16 pixels each, are candidates of two classes: how red and how green they are; what is blue is no object.
"""
import sys
from pathlib import Path
from typing import List, Tuple

import torch
import torch.nn.functional as F


def cells(images: torch.Tensor) -> torch.Tensor:
    pooled = F.avg_pool2d(images, 16)
    b, _, h, w = pooled.shape
    y, x = torch.meshgrid(torch.arange(h) * 16.0 + 8.0, torch.arange(w) * 16.0 + 8.0, indexing="ij")
    place = torch.stack([x, y, torch.full_like(x, 16.0), torch.full_like(x, 16.0)]).expand(b, 4, h, w)
    return torch.cat([place.to(pooled), 1 - pooled[:, 2:], pooled[:, :2]], 1).flatten(2).transpose(1, 2)


class Cells(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return cells(images)


class CellsFirst(torch.nn.Module):
    """Candidates, then the maps that they come from."""

    def forward(self, images: torch.Tensor) -> Tuple[torch.Tensor, List[torch.Tensor]]:
        return cells(images), [images]


class Raw(torch.nn.Module):
    """Three levels of maps [B, 3, H, W, 5 + 2] before the sigmoid."""

    def forward(self, images: torch.Tensor) -> List[torch.Tensor]:
        out: List[torch.Tensor] = []
        for stride in [8, 16, 32]:
            pooled = F.avg_pool2d(images, stride).mean(1, keepdim=True)
            out.append(pooled.unsqueeze(-1).repeat(1, 3, 1, 1, 7))
        return out


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, module in [("cells", Cells()), ("cells_first", CellsFirst()), ("raw", Raw())]:
        torch.jit.script(module).save(folder / f"{name}.pt")
