"""The web process: Label Studio's ML backend routes. Free of torch."""
