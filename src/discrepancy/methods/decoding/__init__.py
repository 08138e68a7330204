"""Decoding of causal language models by a second law: contrast with another prompt, or verification against the input."""
