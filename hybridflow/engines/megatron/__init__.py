"""Megatron-core 0.16.1: training and scoring of one role's model on its own layout."""
