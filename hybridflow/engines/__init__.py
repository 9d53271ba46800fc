"""The engines: Megatron-core for training and scoring, vLLM for generation."""
