"""Several questions asked of the same run."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    Rejecting what is at most alpha keeps the probability of any false rejection at alpha, whatever the
    dependence between the questions. Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.

    Raises:
        ValueError: a value is not a probability.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"not probabilities: {list(p_values)}")
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
