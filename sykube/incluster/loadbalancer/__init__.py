"""Addresses for Services of type LoadBalancer, and who they lead to.

Each has an address of its own, of a range that belongs to the nodes' subnet. This program answers
on their bridge that it is a certain node's, whose kube-proxy leads it on to the pods: by the source
ranges and the traffic policy of the Service, as it does for every load balancer.
"""
