"""A Label Studio ML backend that turns a sentence into correctable masks on every frame of a video."""

__version__ = "0.1.0"
