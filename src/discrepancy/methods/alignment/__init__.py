"""Methods that align a generator with preferences, rewards or constraints."""
