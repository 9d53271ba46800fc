"""Resharding: the actor's weights from the training layout to the generation layout (the 3D-HybridEngine)."""
