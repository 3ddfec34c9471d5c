"""Enforces NetworkPolicies (networking.k8s.io/v1) on the pods of one node, by nftables.

`policies` reads policies, `objects` pods and namespaces, `places` says which address which pod of
the node has, `rules` computes from these what nftables has to hold, `nft` tells the kernel the
difference.
"""
