#!/usr/bin/env python3
"""Writes mat/*.mat: MATLAB files of level 5 in the shapes that data sets use. scipy 1.17.1, numpy.

    make_mat.py OUT
"""
import sys
from pathlib import Path

import numpy as np
from scipy.io import savemat

out = Path(sys.argv[1]) / "mat"
out.mkdir(parents=True, exist_ok=True)

# Oxford Flowers: labels of five images as bytes, splits as wider numbers, compressed and not.
savemat(out / "imagelabels.mat", {"labels": np.array([[77, 1, 102, 1, 3]], np.uint8)})
splits = {"trnid": np.array([[1]], np.uint16), "valid": np.array([[2]], np.uint16), "tstid": np.array([[5, 3, 4]], np.uint16)}
savemat(out / "setid.mat", splits, do_compression=True)

# ILSVRC's development kit: a struct an entry, the last one with children.
kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object), ("children", object)]
synsets = np.zeros((4, 1), kind)
rows = [(1, "n02119789", "kit fox", 0), (2, "n02100735", "English setter", 0), (3, "n01440764", "tench", 0), (1001, "n02118333", "fox", 1)]
for i, (number, wnid, words, children) in enumerate(rows):
    synsets[i, 0] = (np.array([[float(number)]]), wnid, words, np.array([[float(children)]]), np.array([[1.0]][:children]))
savemat(out / "meta.mat", {"synsets": synsets}, do_compression=True)

# Every width, signs, a text, cells, an empty array, and what is not read.
savemat(
    out / "kinds.mat",
    {
        "bytes": np.array([-128, 127], np.int8),
        "words": np.array([[1, 2], [3, 65535]], np.uint16),
        "long": np.array([-(2**31), 2**31 - 1], np.int32),
        "longer": np.array([2**40], np.int64),
        "single": np.array([0.5, -2.0], np.float32),
        "double": np.array([0.1]),
        "empty": np.zeros((0, 3)),
        "text": "grün",
        "cells": np.array(["a", np.array([7.0])], object),
        "complex": np.array([1j]),
    },
)
