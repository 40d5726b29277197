"""The published layouts that load beside our own."""
