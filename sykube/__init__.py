"""Local multi-node Kubernetes clusters whose nodes are Apptainer instances."""
