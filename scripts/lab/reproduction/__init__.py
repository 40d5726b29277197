"""The study of the paper's three claims on generated videos; `scripts/reproduce.py` runs it."""
