"""Reading videos: probing, exact frames by index, streaming windows, JPEG frames for the editor."""
