"""Referring videos made from a seed: training data of the embedded model, fixtures and the demo."""
