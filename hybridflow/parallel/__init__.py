"""Layouts, process groups and the platform."""
