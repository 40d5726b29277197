"""Where what is big lies: a folder, or a bucket in a cloud (SVAC_STORAGE_URL)."""
