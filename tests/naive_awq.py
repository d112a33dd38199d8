"""AWQ's search as its paper writes it, in float64, weight by weight: the oracle of the stacked one."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHRINKS = [1.06 - 0.06 * step for step in range(8)]


def naive_round(w: Array, H: Array | None, bits: int = 4) -> Array:
    """Round one group of one row [size], trying each range against its block of H; without it between its extremes."""
    low, high = min(float(w.min()), 0.0), max(float(w.max()), 0.0)
    top = 2**bits - 1
    best, least = w, np.inf
    for shrink in SHRINKS if H is not None else [1.0]:
        step = float(np.float16(np.clip((high - low) * shrink / top, 2.0**-14, 65504.0)))
        zero = float(np.clip(np.round(-low * shrink / step), 1, top))
        values = (np.clip(np.round(w / step), -zero, top - zero)) * step
        e = values - w
        loss = float(e @ H @ e) if H is not None else 0.0
        if loss < least:
            best, least = values, loss
    return best


def naive_scaled(W: Array, H: Array, s: Array, size: int) -> Array:
    """Q(W diag(s)) diag(s)⁻¹ with clipped ranges."""
    out = np.zeros_like(W)
    for row in range(W.shape[0]):
        for start in range(0, W.shape[1], size):
            part = slice(start, start + size)
            block = H[part, part] / np.outer(s[part], s[part])
            out[row, part] = naive_round(W[row, part] * s[part], block) / s[part]
    return out


def naive_awq(W: Array, H: Array, size: int) -> tuple[float | None, Array, list[float]]:
    """The exponent (None: no scale), its scales [in], and the loss of no scale and of each exponent."""
    m, w = np.sqrt(np.diag(H)), np.abs(W).mean(0)
    m = np.maximum(m / m.mean(), 1e-3)
    w = np.maximum(w / w.mean(), 1e-3)
    tried: list[tuple[float | None, Array]] = [(None, np.ones(len(m)))]
    for step in range(11):
        a = step / 10
        s = m**a / w ** (1 - a)
        tried.append((a, s / np.sqrt(s.max() * s.min())))
    losses = []
    for _, s in tried:
        E = naive_scaled(W, H, s, size) - W
        losses.append(float(np.trace(E @ H @ E.T)))
    best = int(np.argmin(losses))
    return tried[best][0], tried[best][1], losses
