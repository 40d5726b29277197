"""Masks: codecs, polygons, tracks, metrics and pictures of them."""
