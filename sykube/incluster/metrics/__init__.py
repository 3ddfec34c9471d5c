"""The resource metrics of nodes and pods: an aggregated API, metrics.k8s.io/v1beta1.

Source: https://github.com/kubernetes/metrics, and what metrics-server answers.
"""
