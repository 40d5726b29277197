"""Label Studio's regions: written from tracks, read back, and compared with what was sent."""
