"""The statistics of one column: members, null, interval, tail, and the display data."""
