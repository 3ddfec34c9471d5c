"""A page of this host alone that shows a cluster, and the server behind it."""
