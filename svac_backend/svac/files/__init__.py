"""A model's files: where they are, the hub, safetensors, adapters."""
