"""Divergences of logits, row by row: blocks of a row stay in the processor's cache from the logits to the terms' sum."""
