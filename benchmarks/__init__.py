"""Side-by-side ratios behind `make bench`: what the project's speed rests on, measured in interleaved pairs."""
