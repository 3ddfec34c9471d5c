"""Clusters without root: an ordinary user's sykube as root of namespaces of its own.

The first command makes them (namespaces), each later one enters them (entry). In there the code for
root runs on a Host of another kind (host), with another engine (engine); what that root may not do
is in `Host.grants`. docs/rootless.md says what an administrator must give.
"""
