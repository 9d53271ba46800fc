"""The search for a placement: Algorithms 1 and 2 of HybridFlow (arXiv 2409.19256, section 6), and what bounds them."""
