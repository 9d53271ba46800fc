"""Engines behind two protocols (`base`): Megatron-core for training and scoring, vLLM for generation."""
