"""The encoder: token ids → pooled vectors, from plain tensors, as fast as the machine allows."""
