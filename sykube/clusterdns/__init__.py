"""DNS of a cluster made from Debian alone, where there is no CoreDNS.

Two containers of one image share a pod. `python3 -m clusterdns.unbound` starts Unbound, which
clients ask: it caches, forwards the world to the node's resolvers and sends the names of the
cluster to `python3 -m clusterdns`, which knows them from the Kubernetes API.

The package is copied into that image on its own: it imports nothing but the standard library and
dnspython, and only itself by relative imports.
"""
