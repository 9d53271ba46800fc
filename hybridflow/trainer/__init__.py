"""A run, from its configuration to its end: build the roles, loop over steps, validate, save."""
