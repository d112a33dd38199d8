import pytest
import torch


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Two linears that share an input of 64."""
    generator = torch.Generator().manual_seed(7)
    return {"q": torch.randn(64, 64, generator=generator), "k": torch.randn(32, 64, generator=generator)}
