"""Stage 3: which unit runs when, and on which slot."""
