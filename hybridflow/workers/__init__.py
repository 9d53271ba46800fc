"""Workers: what one rank does for each role. They know nothing of the algorithm's flow, nor of Ray."""

from hybridflow.workers.worker import Context, Worker, workers

__all__ = ["Context", "Worker", "workers"]
