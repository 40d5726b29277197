"""The SVAC model: clips, ASTC, the MLLM, SAM-2. Knows nothing of HTTP, jobs or Label Studio."""
