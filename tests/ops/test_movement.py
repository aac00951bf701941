"""Data movement, argmax and topk against plain NumPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from qdq_oracle import array, dtypes, execute, seeds

from intaglio.ops.base import Built


@given(seeds, dtypes, st.permutations(range(3)))
def test_transpose_and_reshape(seed: int, dtype: str, axes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    x = array(rng, rng.integers(1, 6, 3), dtype)
    moved = execute("transpose", [x], Built([], {"axes": list(axes)}))
    assert np.array_equal(moved, np.einsum(x, [0, 1, 2], axes))
    flat = execute("reshape", [moved], Built([], {"shape": [moved.size]}))
    assert flat.tolist() == [moved[i] for i in np.ndindex(*moved.shape)]


@given(seeds, dtypes)
def test_slice_and_gather(seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    x = array(rng, (7, 9), dtype)
    begin = [int(rng.integers(0, n)) for n in x.shape]
    end = [int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, x.shape, strict=True)]
    strides = rng.integers(1, 4, 2).tolist()
    box = execute("slice", [x], Built([], {"begin": begin, "end": end, "strides": strides}))
    rows, columns = (list(range(*bounds)) for bounds in zip(begin, end, strides, strict=True))
    assert box.tolist() == [[x[i, j] for j in columns] for i in rows]
    gathered = execute("gather", [x], Built([], {"axis": 1, "indices": columns}))
    assert gathered.tolist() == [[row[j] for j in columns] for row in x]


@given(seeds, dtypes, st.integers(1, 4))
def test_concat_and_broadcast(seed: int, dtype: str, count: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [array(rng, (2, n, 3), dtype) for n in rng.integers(1, 5, count)]
    whole = execute("concat", parts, Built([], {"axis": 1}))
    assert whole.tolist() == [[row for part in parts for row in part[b].tolist()] for b in range(2)]
    cls = array(rng, (1, 3), dtype)
    assert (
        execute("broadcast", [cls], Built([], {"shape": [2, 4, 3]})).tolist() == [[cls[0].tolist()] * 4] * 2
    )


@given(seeds, dtypes, st.integers(1, 12), st.booleans())
def test_argmax_and_topk_prefer_the_lower_index(seed: int, dtype: str, n: int, keepdims: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 3, (4, n)).astype(dtype)
    x[0] = np.iinfo(dtype).min
    order = [sorted(range(n), key=lambda i, row=row: (-int(row[i]), i)) for row in x]
    k = int(rng.integers(1, n + 1))
    assert execute("topk", [x], Built([], {"k": k})).tolist() == [row[:k] for row in order]
    best = execute("argmax", [x], Built([], {"axis": 1, "keepdims": int(keepdims)}))
    assert best.reshape(-1).tolist() == [row[0] for row in order]
