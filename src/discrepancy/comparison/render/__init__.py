"""A finished `ComparisonReport` as text for people: terminal, Markdown, HTML, csv. No statistics are computed here."""
