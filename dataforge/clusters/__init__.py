"""Vectors become clusters, and clusters are explained."""

from dataforge.clusters.cluster import ClusterConfig, cluster, default_num_clusters
from dataforge.clusters.clusters import read_labels, read_sizes, read_summary
from dataforge.clusters.explain import ExplainConfig, explain, read_explanations, read_map

__all__ = [
    "ClusterConfig",
    "ExplainConfig",
    "cluster",
    "default_num_clusters",
    "explain",
    "read_explanations",
    "read_labels",
    "read_map",
    "read_sizes",
    "read_summary",
]
