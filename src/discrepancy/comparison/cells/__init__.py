"""What text cells say: numbers, instants and truth values in the spellings that people use."""
