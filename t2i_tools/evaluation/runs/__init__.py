"""Runs that survive being killed: manifests, stages, engines."""
