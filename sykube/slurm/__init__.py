"""Slurm clusters in the pods of a cluster: their options, their objects, what is asked of them."""
