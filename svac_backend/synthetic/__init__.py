"""Referring videos made from nothing: training data, fixtures and the demo."""
