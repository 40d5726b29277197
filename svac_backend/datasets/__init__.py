"""Annotations out of Label Studio and back in: windows joined into whole videos, in the layouts of known data sets."""
