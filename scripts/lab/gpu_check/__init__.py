"""The GPU path, checked on one GPU in eight minutes: `scripts/gpu_check.sh`."""
