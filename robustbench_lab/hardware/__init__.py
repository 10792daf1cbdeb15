"""The machine: its GPUs and cores, its memory, its processes."""
