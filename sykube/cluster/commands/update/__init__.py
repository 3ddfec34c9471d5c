"""Bringing a running cluster to a newer Kubernetes, or to a newer build of its node image.

update is the order of it all: target finds what the cluster is to be brought to, checks refuses
what cannot be, upgrade is kubeadm's part, nodes starts each from the new image, rollback is the way
back, and progress is what the cluster's record keeps of it.
"""
