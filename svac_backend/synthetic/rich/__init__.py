"""Referring videos that need language and time: many kinds of objects, named motions, look-alikes, a moving camera."""
