"""Hooks: one module's call, one forward pass of the model."""
