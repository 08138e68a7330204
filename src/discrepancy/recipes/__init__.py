"""One file a paper: its claim in one sentence, checked on data at hand against a baseline, over seeds."""
