"""Storage of large files: a folder, or a bucket in a cloud (SVAC_STORAGE_URL)."""
