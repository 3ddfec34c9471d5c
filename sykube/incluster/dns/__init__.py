"""Cluster DNS where there is no CoreDNS: Debian does not package it.

Three containers of one image share a pod. `python3 -m incluster.dns.unbound` starts Unbound: it
caches, forwards the world to the node's resolvers and sends the names of the cluster to
`python3 -m incluster.dns`, which knows them from the Kubernetes API. Clients ask it over TCP; over
UDP they ask `python3 -m incluster.dns.front`, which asks Unbound.
"""
