"""From a configuration to a finished run: build the roles, loop over steps, validate, save."""
