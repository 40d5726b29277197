"""Annotations out of Label Studio and back in: windows joined to whole videos, in the layouts of the data sets."""
