"""What the compiler may assume in these loops: anything about order and signs of zero, and that no NaN occurs.

Infinities may: a forbidden pair has cost +inf, its exponent is -inf and its share exactly zero.
"""

from __future__ import annotations

FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}
