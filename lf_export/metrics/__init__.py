"""What is measured: calls, distributions, latency, and the gate that judges them."""
