"""vLLM 0.32: generation inside our own ranks (its external launcher), fed with our shards."""
