"""The rules of the federation without network, disk or clock: the coordinator and what it hands out."""
