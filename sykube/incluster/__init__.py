"""Programs that run in pods of the cluster.

The package is copied into their image on its own: it imports nothing but the standard library and
dnspython, and only itself by relative imports.
"""
