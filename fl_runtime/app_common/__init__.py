"""Common parts for controllers and executors, named as in NVIDIA FLARE."""
