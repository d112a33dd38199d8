"""A decoder, layer by layer, its weights streamed from disk."""
