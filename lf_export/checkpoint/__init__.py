"""Checkpoints on disk: safetensors read by headers, adapters, merges, and folders that appear whole or not at all."""
