"""What a run tells: metrics, the live view, the run folder."""
