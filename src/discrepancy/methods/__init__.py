"""The published methods, a folder for each field whose people use them."""
