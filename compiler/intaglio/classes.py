"""The best classes of a classifier's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_classes(
    results: NDArray[np.float64], count: int, names: Sequence[str] | None, *, indices: bool
) -> list[list[dict[str, Any]]]:
    """For each sample of `results` its `count` best classes: `class`, `label` (`None` without `names`), `logit`.

    `indices`: the model ends in arg-max or top-k, so that its results [N] or [N, k] are classes already, without
    logits. Ties go to the lower class. Results that are not [N, classes] have no classes.
    """
    if indices:
        return [[_entry(int(index), None, names) for index in np.atleast_1d(row)[:count]] for row in results]
    if results.ndim != 2:
        return [[] for _ in results]
    order = np.argsort(-results, axis=1, kind="stable")[:, :count]
    return [
        [_entry(int(index), float(row[index]), names) for index in best]
        for row, best in zip(results, order, strict=True)
    ]


def _entry(index: int, logit: float | None, names: Sequence[str] | None) -> dict[str, Any]:
    return {"class": index, "label": names[index] if names is not None else None, "logit": logit}
