"""Slurm clusters in a cluster: set up, scaled, shown, removed."""
