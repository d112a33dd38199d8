"""GPTQ as its paper writes it, in float64 and column by column: the oracle of the blocked one."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def naive_gptq(
    W: Array, H: Array, scales: Array, zeros: Array, groups: list[int], order: list[int], damp: float, maxq: int
) -> NDArray[np.int64]:
    """Round W [out, in] with the update of algorithm 1 of arXiv:2210.17323, on a grid [out, groups] that is given.

    Columns are taken in `order`; `groups[i]` is the group of column i; damping is a share of the mean of diag(H).
    """
    n = H.shape[0]
    H = H.copy()
    mean = float(np.mean(np.diag(H)))
    for i in range(n):
        if H[i, i] == 0:
            H[i, i] = mean
        H[i, i] += damp * mean
    W = W[:, order].copy()
    H = H[np.ix_(order, order)]
    inverse = np.linalg.inv(H)
    U = np.linalg.cholesky(inverse).T  # upper, inverse = UᵀU
    q = np.zeros(W.shape, dtype=np.int64)
    for k in range(n):
        g = groups[order[k]]
        column = W[:, k]
        steps = np.clip(np.round(column / scales[:, g]) + zeros[:, g], 0, maxq)
        rounded = (steps - zeros[:, g]) * scales[:, g]
        error = (column - rounded) / U[k, k]
        W[:, k:] -= np.outer(error, U[k, k:])
        q[:, order[k]] = steps.astype(np.int64)
    return q


def naive_moments(X: Array, weights: Array) -> tuple[Array, Array]:
    """Σ w x xᵀ and Σ w |x|, token by token."""
    H = np.zeros((X.shape[1], X.shape[1]))
    magnitude = np.zeros(X.shape[1])
    for x, w in zip(X, weights, strict=True):
        H += w * np.outer(x, x)
        magnitude += w * np.abs(x)
    return H, magnitude


def naive_compensation(W: Array, H: Array, allowed: Array, order: list[int], damp: float) -> NDArray[np.int64]:
    """Algorithm 1 of arXiv:2210.17323 for any values: [out, in, choices], as indices into the last axis."""
    n = H.shape[0]
    H = H[np.ix_(order, order)] + damp * float(np.mean(np.diag(H))) * np.eye(n)
    U = np.linalg.cholesky(np.linalg.inv(H)).T
    W, rows = W[:, order].copy(), np.arange(W.shape[0])
    chosen = np.zeros(W.shape, dtype=np.int64)
    for k in range(n):
        values = allowed[:, order[k]]
        index = np.argmin(np.abs(values - W[:, k : k + 1]), axis=1)
        error = (W[:, k] - values[rows, index]) / U[k, k]
        W[:, k:] -= np.outer(error, U[k, k:])
        chosen[:, order[k]] = index
    return chosen
