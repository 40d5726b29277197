"""Durable jobs and the worker that owns the model."""
