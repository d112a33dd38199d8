"""A router: from a model's own logits where its answer begins, is a call wanted or prose?

Logistic regression on the first principal components of the log-probabilities, so that it needs nothing but what every
runtime gives. It sees more than the likeliest token, which is all that greedy decoding acts on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

_COMPONENTS = 32
_RIDGE = 1e-3
_STEPS = 50


@dataclass(frozen=True)
class Router:
    """Fitted weights; `wants_call` is linear in the log-probabilities."""

    mean: Matrix
    weights: Matrix
    bias: float

    def wants_call(self, logits: Sequence[npt.NDArray[np.float32]]) -> list[bool]:
        """For each prompt's logits [vocab_size], where its answer begins: whether a call is wanted."""
        found = ((_log_probabilities(logits) - self.mean) @ self.weights + self.bias) > 0
        return [bool(each) for each in found]


def fit_router(logits: Sequence[npt.NDArray[np.float32]], calls: Sequence[bool]) -> Router:
    """The router that tells these prompts apart, by their logits [vocab_size] where the answer begins.

    Minimizes the mean logistic loss with a ridge on the weights, over components scaled to a mean squared norm of one;
    Newton's steps, which converge as the loss is convex.

    Raises:
        ValueError: no prompts, or all of one kind.
    """
    wanted = np.asarray(calls, dtype=np.float64)
    if not 0 < wanted.sum() < len(wanted):
        raise ValueError("a router needs prompts of both kinds")
    X = _log_probabilities(logits)
    mean = X.mean(axis=0)
    X = X - mean
    # The components from the Gram matrix [n, n], for there are fewer prompts than tokens: X = U S Vᵀ.
    squares, U = np.linalg.eigh(X @ X.T)
    kept = np.argsort(squares)[::-1][:_COMPONENTS]
    kept = kept[squares[kept] > 1e-9 * max(squares.max(), 1e-300)]
    scale = max(float(np.sqrt(squares[kept].sum() / len(X))), 1e-12)
    Z = U[:, kept] * np.sqrt(squares[kept]) / scale
    w, bias = _logistic(Z, wanted)
    basis = X.T @ (U[:, kept] / np.sqrt(squares[kept]))  # V, [vocab_size, components]
    return Router(mean, basis @ w / scale, bias)


def _logistic(Z: Matrix, wanted: Matrix) -> tuple[Matrix, float]:
    A = np.hstack([Z, np.ones((len(Z), 1))])
    ridge = np.diag([_RIDGE] * Z.shape[1] + [1e-9])  # the bias is free
    w = np.zeros(A.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(A @ w, -30, 30)))
        gradient = A.T @ (p - wanted) / len(A) + ridge @ w
        hessian = (A.T * (p * (1 - p) + 1e-9)) @ A / len(A) + ridge
        step = np.linalg.solve(hessian, gradient)
        norm = float(np.abs(step).max())
        w -= step * min(1.0, 5.0 / norm) if norm else step  # far from the minimum a whole step may overshoot
        if norm < 1e-8:
            break
    return w[:-1], float(w[-1])


def _log_probabilities(logits: Sequence[npt.NDArray[np.float32]]) -> Matrix:
    values = np.stack([np.asarray(row, dtype=np.float64) for row in logits])
    values -= values.max(axis=1, keepdims=True)
    found: Matrix = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return found
