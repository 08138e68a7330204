"""Profiles: data sets summed up in small files that compare, merge and travel; and comparisons that stream large files."""

from __future__ import annotations

from discrepancy.comparison.profile.merging import merge
from discrepancy.comparison.profile.profile import ColumnProfile, Profile, profile
from discrepancy.comparison.profile.store import is_profile, load_profile

__all__ = ["ColumnProfile", "Profile", "is_profile", "load_profile", "merge", "profile"]
