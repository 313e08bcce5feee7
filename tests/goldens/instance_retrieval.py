#!/usr/bin/env python3
"""Goldens of instance retrieval: random rankings with junk, and their precision by the revisited Oxford and Paris protocol, in float64.

    pip install numpy safetensors
    python goldens/instance_retrieval.py goldens/instance.safetensors

Written from the protocol's definition: junk is taken out of the ranking, average precision is the area below the precision-recall
curve by trapezoids, precision at k counts to the last right image at most, queries without a right image do not count. Slow and
easy to check: each query's ranking is walked from its first image to its last.

Rows are integers over 8, so that every similarity is exact in any precision and many are equal; of equal ones the first comes first,
and distractors come last.
"""
import sys

import numpy as np
from safetensors.numpy import save_file

QUERIES, IMAGES, DISTRACTORS, DIM = 12, 90, 60, 8
NOTHING, EASY, HARD, JUNK = range(4)


def curve(ranking):
    """Precision and recall after each image of a ranking of booleans; before the first, precision is 1 by convention if it is right."""
    right, points = sum(ranking), []
    found = 0
    for rank, hit in enumerate(ranking):
        before = 1.0 if rank == 0 else found / rank
        found += hit
        if hit:
            points.append((before, found / (rank + 1), 1 / right))
    return points


def average_precision(ranking):
    return sum((before + after) / 2 * step for before, after, step in curve(ranking))


def precision_at(ranking, k):
    last = max(rank for rank, hit in enumerate(ranking) if hit) + 1
    k = min(k, last)
    return sum(ranking[:k]) / k


def measure(scores, kinds, right, junk):
    """Mean AP and mean precision at 1, 5, 10 over the queries that have something to find."""
    rows = []
    for score, kind in zip(scores, kinds):
        # A stable sort keeps equal ones in their order.
        order = np.argsort(-score, kind="stable")
        ranking = [bool(np.isin(kind[i], right)) for i in order if not np.isin(kind[i], junk)]
        if any(ranking):
            rows.append([average_precision(ranking)] + [precision_at(ranking, k) for k in (1, 5, 10)])
    return np.mean(rows, axis=0)


def main(path):
    random = np.random.Generator(np.random.PCG64(20))
    whole = lambda n: random.integers(-3, 4, size=(n, DIM)).astype(np.float64) / 8
    queries, database, distractors = whole(QUERIES), whole(IMAGES), whole(DISTRACTORS)
    kinds = random.choice([NOTHING, EASY, HARD, JUNK], size=(QUERIES, IMAGES), p=[0.75, 0.08, 0.07, 0.1])
    kinds[0][kinds[0] == EASY] = NOTHING  # finds nothing at the level Easy
    kinds[1] = np.where(kinds[1] == JUNK, JUNK, NOTHING)  # finds nothing at all
    # Right images are nearer to their queries, as after some training.
    for query, kind in zip(queries, kinds):
        for image in np.flatnonzero((kind == EASY) | (kind == HARD)):
            database[image] = np.clip(database[image] + np.sign(query) / 8, -1, 1)
    levels = [([EASY], [JUNK, HARD]), ([EASY, HARD], [JUNK]), ([HARD], [JUNK, EASY])]
    scores = queries @ database.T
    more = np.concatenate([scores, queries @ distractors.T], axis=1)
    padded = np.concatenate([kinds, np.zeros((QUERIES, DISTRACTORS), kinds.dtype)], axis=1)
    values = np.stack([measure(scores, kinds, *level) for level in levels])
    values_more = np.stack([measure(more, padded, *level) for level in levels])
    save_file(
        {
            "queries": queries.astype(np.float32),
            "database": database.astype(np.float32),
            "distractors": distractors.astype(np.float32),
            "kinds": kinds.astype(np.int64),
            "values": values,
            "values_with_distractors": values_more,
        },
        path,
    )
    print(values, values_more, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
