"""Partial transport: only so much of the mass is carried, and which part of it is chosen."""
