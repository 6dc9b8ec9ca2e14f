"""Text to training sequences: readers, the normaliser, memory-mapped shards, sequences shaped as the fold reads."""
