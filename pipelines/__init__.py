"""Diffusers pipelines with the plugins built in; one class a file, each also a custom pipeline."""
